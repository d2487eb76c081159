// Argument checks, each written once, for the CPU and the CUDA operators. A failed check throws std::invalid_argument,
// which reaches Python as ValueError; the message names the argument, what was expected and what came.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <sstream>
#include <stdexcept>
#include <string>

namespace ise_fast {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

template <class... Parts>
void check(bool ok, const Parts&... parts) {
  if (ok) [[likely]]
    return;
  std::ostringstream message;
  (message << ... << parts);
  throw std::invalid_argument(message.str());
}

inline const char* dtype_name(ScalarType type) {
  switch (type) {
    case ScalarType::Float:
      return "float32";
    case ScalarType::Double:
      return "float64";
    case ScalarType::Half:
      return "float16";
    case ScalarType::BFloat16:
      return "bfloat16";
    case ScalarType::Long:
      return "int64";
    case ScalarType::Int:
      return "int32";
    case ScalarType::Byte:
      return "uint8";
    case ScalarType::Bool:
      return "bool";
    default:
      return "another dtype";
  }
}

inline std::string shape_of(const Tensor& tensor) {
  std::ostringstream text;
  text << '[';
  for (int64_t i = 0; i < tensor.dim(); ++i) text << (i ? ", " : "") << tensor.size(i);
  text << ']';
  return text.str();
}

// The memory of every element is there: a storage can be freed or made smaller under a tensor.
inline void check_storage(const Tensor& tensor, const char* name) {
  check(tensor.defined(), name, ": expected a tensor, got None");
  int64_t bytes = 0, last = tensor.storage_offset();
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_storage_size(tensor.get(), &bytes));
  for (int64_t dim = 0; dim < tensor.dim(); ++dim) {
    if (tensor.size(dim) == 0) return;
    last += (tensor.size(dim) - 1) * tensor.stride(dim);
  }
  const auto size = static_cast<int64_t>(tensor.element_size());
  check(last < bytes / size, name, ": expected a storage of at least ", last + 1, " elements, got ", bytes / size);
}

inline void check_dim(const Tensor& tensor, const char* name, int64_t dim) {
  check_storage(tensor, name);
  check(tensor.dim() == dim, name, ": expected ", dim, " dimensions, got shape ", shape_of(tensor));
}

inline void check_dtype(const Tensor& tensor, const char* name, ScalarType type) {
  check(tensor.scalar_type() == type, name, ": expected ", dtype_name(type), ", got ",
        dtype_name(tensor.scalar_type()));
}

inline void check_size(const Tensor& tensor, const char* name, int64_t dim, int64_t size) {
  check(tensor.size(dim) == size, name, ": expected size ", size, " in dimension ", dim, ", got shape ",
        shape_of(tensor));
}

inline void check_same_device(const Tensor& tensor, const char* name, const Tensor& other, const char* other_name) {
  check(tensor.is_cuda() == other.is_cuda() && tensor.get_device_index() == other.get_device_index(), name,
        ": expected the device of ", other_name, ", got another one");
}

// [rows, d] float32.
inline void check_matrix(const Tensor& tensor, const char* name) {
  check_dim(tensor, name, 2);
  check_dtype(tensor, name, ScalarType::Float);
}

// [rows] int64.
inline void check_labels(const Tensor& labels, int64_t rows) {
  check_dim(labels, "labels", 1);
  check_dtype(labels, "labels", ScalarType::Long);
  check_size(labels, "labels", 0, rows);
}

// Rows of a tile, an argument that only tests set: 0 chooses. Sums of it and a number of rows must not overflow.
inline void check_block(int64_t block) {
  constexpr int64_t kMost = int64_t{1} << 30;
  check(0 <= block && block <= kMost, "block: expected 0 (chosen) to ", kMost, ", got ", block);
}

inline void check_range(int64_t value, const char* name, int64_t low, int64_t high) {
  check(low <= value && value <= high, name, ": expected ", low, " to ", high, ", got ", value);
}

}  // namespace ise_fast
