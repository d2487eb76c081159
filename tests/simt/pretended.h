// The GPU that the host poses as. The tests change it with simt_set_device; csrc/cuda/device.h asks it.
#pragma once
#include <cstdint>
#include <limits>

namespace simt {

struct Pretended {
  int multiprocessors = 4;
  std::int64_t bytes = 64 << 20;
  std::int64_t largest_allocation = std::numeric_limits<std::int64_t>::max();  // a larger one fails
  std::int64_t most_numbers = std::numeric_limits<std::int64_t>::max();        // of scratch that is planned by shape
  unsigned most_blocks_across = 65535;                                         // gridDim.y and z
  int of_tensors = 0;                                                          // the device that all tensors are on
  int current = 0;                                                             // CUDA's current device
};
extern Pretended device;

// The stream of the tensors' device.
void* stream_of_tensors();

// Throws unless the tensors' device is current and `stream` (if not null) is one of its streams.
void check_device(const char* what, const void* stream = nullptr);

}  // namespace simt
