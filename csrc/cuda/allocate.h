// New tensors on the device, and what happens when it has no room for one: every allocation of csrc/cuda is made here.
//
// How much to take is planned from shapes and the size of the device (device_bytes), not from what is free: PyTorch's
// cache, which it gives back when memory is short, would count as taken. Where a plan was too large, half of it is
// tried (halve_on_failure).
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <optional>
#include <stdexcept>

#include "../out_of_memory.h"
#include "device.h"

namespace ise_fast {

// Set by Python (allocate.cu): asks PyTorch for the memory once more, where its own error can be seen and raised; the C
// interface through which we ask keeps neither text nor type. Returns if the memory is there now, but not if `last`.
using MemoryHook = void (*)(int64_t bytes, int device, bool last);
extern MemoryHook memory_hook;

// While one lives, nobody asks Python: a smaller attempt will follow.
class Attempt {
public:
  Attempt() { ++running; }
  ~Attempt() { --running; }
  Attempt(const Attempt&) = delete;
  Attempt& operator=(const Attempt&) = delete;
  static inline thread_local int running = 0;
};

inline int64_t item_bytes(torch::headeronly::ScalarType type) {
  using torch::headeronly::ScalarType;
  switch (type) {
    case ScalarType::Byte:
    case ScalarType::Bool:
      return 1;
    case ScalarType::Half:
    case ScalarType::BFloat16:
      return 2;
    case ScalarType::Int:
    case ScalarType::Float:
      return 4;
    default:
      return 8;
  }
}

// An uninitialised tensor on the device of `like`, of its dtype or of `type`.
inline torch::stable::Tensor device_empty(const torch::stable::Tensor& like,
                                          torch::headeronly::IntHeaderOnlyArrayRef size,
                                          std::optional<torch::headeronly::ScalarType> type = std::nullopt) {
  int64_t bytes = item_bytes(type.value_or(like.scalar_type()));
  for (const int64_t along : size) bytes *= along;
  for (bool last : {false, true}) {
    try {
      if (may_allocate(bytes)) return torch::stable::new_empty(like, size, type);
    } catch (const std::runtime_error&) {  // all that the C interface tells
    }
    if (Attempt::running > 0 || memory_hook == nullptr) break;
    memory_hook(bytes, like.get_device_index(), last);
  }
  throw OutOfMemory(static_cast<uint64_t>(bytes));
}

inline torch::stable::Tensor device_zeros(const torch::stable::Tensor& like,
                                          torch::headeronly::IntHeaderOnlyArrayRef size,
                                          std::optional<torch::headeronly::ScalarType> type = std::nullopt) {
  torch::stable::Tensor out = device_empty(like, size, type);
  const int64_t bytes = out.numel() * item_bytes(out.scalar_type());
  if (bytes > 0) fill_bytes(out.mutable_data_ptr(), 0, static_cast<size_t>(bytes), current_stream(like));
  return out;
}

// The tensor itself if its numbers lie one after the other.
inline torch::stable::Tensor device_contiguous(const torch::stable::Tensor& tensor) {
  if (tensor.is_contiguous()) return tensor;
  torch::stable::Tensor out = device_empty(tensor, tensor.sizes());
  torch::stable::copy_(out, tensor);
  return out;
}

// The same, and a copy too where it shares memory with `written`, which is contiguous: other blocks read what one
// writes.
inline torch::stable::Tensor contiguous_apart(const torch::stable::Tensor& tensor,
                                              const torch::stable::Tensor& written) {
  const torch::stable::Tensor out = device_contiguous(tensor);
  const auto begin = [](const torch::stable::Tensor& t) { return static_cast<const char*>(t.const_data_ptr()); };
  const auto end = [&](const torch::stable::Tensor& t) { return begin(t) + t.numel() * item_bytes(t.scalar_type()); };
  if (begin(out) >= end(written) || begin(written) >= end(out)) return out;
  torch::stable::Tensor copy = device_empty(out, out.sizes());
  torch::stable::copy_(copy, out);
  return copy;
}

// attempt(size); where memory is short, attempt(size / 2) and so on, the last time with `least`.
template <class Body>
auto halve_on_failure(int64_t size, int64_t least, const Body& attempt) {
  for (; size > least; size = std::max(size / 2, least)) {
    try {
      const Attempt scope;
      return attempt(size);
    } catch (const OutOfMemory&) {
    }
  }
  return attempt(size);
}

}  // namespace ise_fast
