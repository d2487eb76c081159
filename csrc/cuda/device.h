// The device that a tensor lives on: which one is current, its stream, what it offers. In the tests' host build the
// device is the CPU, posing as a GPU with little memory and few multiprocessors.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>

#ifdef __CUDACC__

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

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

// The most dynamic shared memory that a block can ask for, in bytes.
inline int64_t shared_bytes_per_block() {
  return device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
}

// What an operator may plan its scratch with: memory that nobody has, in bytes. PyTorch's cache counts as taken.
inline int64_t free_bytes() {
  size_t free = 0, total = 0;
  check_cuda(cudaMemGetInfo(&free, &total));
  return static_cast<int64_t>(free);
}

// A number that the host needs, such as the size of an output. Waits for the stream.
template <class T>
T read_back(const T* device_pointer, cudaStream_t stream) {
  T value;
  check_cuda(cudaMemcpyAsync(&value, device_pointer, sizeof value, cudaMemcpyDeviceToHost, stream));
  check_cuda(cudaStreamSynchronize(stream));
  return value;
}

inline void fill_bytes(void* device_pointer, int byte, size_t bytes, cudaStream_t stream) {
  check_cuda(cudaMemsetAsync(device_pointer, byte, bytes, stream));
}

}  // namespace ise_fast

#else

#include <cstring>

#include "simt.h"

namespace ise_fast {

struct DeviceScope {
  explicit DeviceScope(const torch::stable::Tensor&) {}
};

inline cudaStream_t current_stream(const torch::stable::Tensor&) {
  return nullptr;
}
inline int multiprocessors() {
  return 4;
}
inline int64_t shared_bytes_per_block() {
  return 99 * 1024;  // the least that a supported GPU offers
}
inline int64_t free_bytes() {
  return 64 << 20;
}
template <class T>
T read_back(const T* device_pointer, cudaStream_t) {
  return *device_pointer;
}
inline void fill_bytes(void* device_pointer, int byte, size_t bytes, cudaStream_t) {
  std::memset(device_pointer, byte, bytes);
}

}  // namespace ise_fast

#endif
