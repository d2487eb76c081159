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

inline void check_dim(const Tensor& tensor, const char* name, int64_t dim) {
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

inline void check_range(int64_t value, const char* name, int64_t low, int64_t high) {
  check(low <= value && value <= high, name, ": expected ", low, " to ", high, ", got ", value);
}

}  // namespace ise_fast
