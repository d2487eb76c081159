#include "pretended.h"

#include <stdexcept>
#include <string>

namespace simt {

Pretended device;

namespace {
char streams[2];  // of devices 0 and 1
}

void* stream_of_tensors() {
  return streams + device.of_tensors;
}

void check_device(const char* what, const void* stream) {
  const std::string tensors = ", the tensors are on device " + std::to_string(device.of_tensors);
  if (device.current != device.of_tensors) {
    throw std::runtime_error(std::string(what) + ": device " + std::to_string(device.current) + " is current" +
                             tensors);
  }
  if (stream != nullptr && stream != stream_of_tensors()) {
    throw std::runtime_error(std::string(what) + ": the stream is another device's" + tensors);
  }
}

}  // namespace simt

// For the Python tests. Device 0 is current before and after every operator.
extern "C" __attribute__((visibility("default"))) void simt_set_device(int multiprocessors, std::int64_t bytes,
                                                                       std::int64_t largest_allocation,
                                                                       std::int64_t most_numbers,
                                                                       unsigned most_blocks_across, int of_tensors) {
  simt::device = {multiprocessors, bytes, largest_allocation, most_numbers, most_blocks_across, of_tensors, 0};
}
extern "C" __attribute__((visibility("default"))) int simt_current_device() {
  return simt::device.current;
}
