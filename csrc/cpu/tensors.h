// New tensors on the CPU. torch's C interface turns every error into one sentence that names neither cause nor size,
// and prints the rest; so memory is asked for once by hand first.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <limits>
#include <optional>

#include "../out_of_memory.h"

namespace ise_fast {

// Throws OutOfMemory if `bytes` cannot be had.
inline void check_memory(uint64_t bytes) {
  constexpr uint64_t kSmall = 1 << 20;
  if (bytes < kSmall) return;
  void* const memory = bytes <= std::numeric_limits<int64_t>::max() ? std::malloc(bytes) : nullptr;
  if (memory == nullptr) throw OutOfMemory(bytes);
  std::free(memory);
}

inline uint64_t bytes_of(std::initializer_list<int64_t> sizes, uint64_t item) {
  double estimate = static_cast<double>(item);  // the exact product may overflow
  uint64_t bytes = item;
  for (const int64_t size : sizes) {
    estimate *= static_cast<double>(size);
    bytes *= static_cast<uint64_t>(size);
  }
  return estimate < 9e18 ? bytes : std::numeric_limits<uint64_t>::max();
}

// An uninitialised tensor on the device of `like`, of its dtype or of `type`.
inline torch::stable::Tensor new_tensor(const torch::stable::Tensor& like, std::initializer_list<int64_t> sizes,
                                        std::optional<torch::headeronly::ScalarType> type = std::nullopt) {
  const auto code = torch::stable::detail::to<int32_t>(torch::stable::detail::from(type.value_or(like.scalar_type())));
  check_memory(bytes_of(sizes, aoti_torch_dtype_element_size(code)));
  return torch::stable::new_empty(like, sizes, type);
}

// The same numbers one after the other: the tensor itself if they are already.
inline torch::stable::Tensor row_major(const torch::stable::Tensor& tensor) {
  if (!tensor.is_contiguous()) check_memory(static_cast<uint64_t>(tensor.numel()) * tensor.element_size());
  return torch::stable::contiguous(tensor);
}

// The same numbers, rounded to another dtype: the tensor itself if it is of that one.
inline torch::stable::Tensor in_dtype(const torch::stable::Tensor& tensor, torch::headeronly::ScalarType type) {
  if (tensor.scalar_type() == type) return tensor;
  torch::stable::Tensor out = torch::stable::new_empty(tensor, tensor.sizes(), type);
  torch::stable::copy_(out, tensor);
  return out;
}

// The same at an address that is a multiple of 64, as torch's own allocations are: the last bit of a product by the
// library may depend on where its factors begin.
inline torch::stable::Tensor factor(const torch::stable::Tensor& tensor) {
  const torch::stable::Tensor dense = row_major(tensor);
  if (reinterpret_cast<uintptr_t>(dense.const_data_ptr()) % 64 == 0) return dense;
  check_memory(static_cast<uint64_t>(dense.numel()) * dense.element_size());
  return torch::stable::clone(dense);
}

}  // namespace ise_fast
