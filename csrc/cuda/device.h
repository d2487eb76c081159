// The device that a tensor lives on: which one is current, its stream, what it offers. In the tests' host build the
// device is the CPU, posing as a GPU that the tests describe (tests/simt/pretended.h).
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>

#include "../interrupt.h"

#ifdef __CUDACC__

#include <cuda_runtime.h>

#include <cstddef>
#include <stdexcept>
#include <string>
#include <utility>

namespace ise_fast {

inline void check_cuda(cudaError_t status, const char* what = "CUDA") {
  if (status != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
}

// Makes the tensor's device current as long as it lives.
class DeviceScope {
public:
  explicit DeviceScope(const torch::stable::Tensor& tensor) : guard_(tensor.get_device_index()) {}

private:
  torch::stable::accelerator::DeviceGuard guard_;
};

inline cudaStream_t current_stream(const torch::stable::Tensor& tensor) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

inline int device_attribute(cudaDeviceAttr attribute) {
  int device = 0, value = 0;
  check_cuda(cudaGetDevice(&device));
  check_cuda(cudaDeviceGetAttribute(&value, attribute, device));
  return value;
}

// Of the current device.
inline int multiprocessors() {
  return device_attribute(cudaDevAttrMultiProcessorCount);
}

// All memory of the current device, in bytes. Scratch is planned with it: what is free says nothing, since PyTorch's
// cache counts as taken.
inline int64_t device_bytes() {
  size_t free = 0, total = 0;
  check_cuda(cudaMemGetInfo(&free, &total));
  return static_cast<int64_t>(total);
}

// For the tests, which let small allocations fail (allocate.h) and small inputs go in many tiles.
inline bool may_allocate(int64_t) {
  return true;
}
#ifdef ISE_FAST_PTX
extern "C" int64_t ptx_at_once(int64_t numbers);  // tests/ptx/library.cpp
inline int64_t at_once(int64_t numbers) {
  return ptx_at_once(numbers);
}
#else
inline int64_t at_once(int64_t numbers) {
  return numbers;
}
#endif

// Memory of the host that the device writes to while the host goes on: a page for each thread, never returned.
constexpr std::size_t kPinnedBytes = 4096;
inline void*& pinned_page() {
  thread_local void* page = nullptr;
  if (page == nullptr) check_cuda(cudaHostAlloc(&page, kPinnedBytes, cudaHostAllocPortable), "cudaHostAlloc");
  return page;
}

// A number that the host needs, such as the size of an output. Waits for the stream, and hears Ctrl-C meanwhile: what
// was launched still runs to its end, in memory that nobody gets before.
template <class T>
T read_back(const T* device_pointer, cudaStream_t stream) {
  static_assert(sizeof(T) <= kPinnedBytes);
  void*& kept = pinned_page();
  void* const page = std::exchange(kept, nullptr);  // were this interrupted, the number would arrive at some later time
  check_cuda(cudaMemcpyAsync(page, device_pointer, sizeof(T), cudaMemcpyDeviceToHost, stream));
  cudaError_t status = cudaSuccess;
  while ((status = cudaStreamQuery(stream)) == cudaErrorNotReady) poll_interrupt();
  check_cuda(status);
  kept = page;
  return *static_cast<const T*>(page);
}

inline void fill_bytes(void* device_pointer, int byte, size_t bytes, cudaStream_t stream) {
  check_cuda(cudaMemsetAsync(device_pointer, byte, bytes, stream));
}

}  // namespace ise_fast

#else

#include <algorithm>
#include <cstring>

#include "pretended.h"
#include "simt.h"

namespace ise_fast {

class DeviceScope {
public:
  explicit DeviceScope(const torch::stable::Tensor&) : before_(simt::device.current) {
    simt::device.current = simt::device.of_tensors;
  }
  ~DeviceScope() { simt::device.current = before_; }
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

private:
  const int before_;
};

inline cudaStream_t current_stream(const torch::stable::Tensor&) {
  return simt::stream_of_tensors();
}
inline int multiprocessors() {
  simt::check_device("multiprocessors");
  return simt::device.multiprocessors;
}
inline int64_t device_bytes() {
  simt::check_device("device_bytes");
  return simt::device.bytes;
}
inline bool may_allocate(int64_t bytes) {
  return bytes <= simt::device.largest_allocation;
}
inline int64_t at_once(int64_t numbers) {
  return std::min(numbers, simt::device.most_numbers);
}
template <class T>
T read_back(const T* device_pointer, cudaStream_t stream) {
  simt::check_device("read_back", stream);
  return *device_pointer;
}
inline void fill_bytes(void* device_pointer, int byte, size_t bytes, cudaStream_t stream) {
  simt::check_device("fill_bytes", stream);
  std::memset(device_pointer, byte, bytes);
}

}  // namespace ise_fast

#endif
