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

// [size] int64 beside `other`.
inline void check_ids(const Tensor& ids, const char* name, int64_t size, const Tensor& other, const char* other_name) {
  check_dim(ids, name, 1);
  check_dtype(ids, name, ScalarType::Long);
  check_size(ids, name, 0, size);
  check_same_device(ids, name, other, other_name);
}

// Arguments of rank_metrics; cameras are null when not given.
inline void check_rank_metrics(const Tensor& distance, const Tensor& query_ids, const Tensor& gallery_ids,
                               const Tensor* query_cams, const Tensor* gallery_cams, int64_t max_rank) {
  check_dim(distance, "distance", 2);
  if (distance.scalar_type() != ScalarType::Double) check_dtype(distance, "distance", ScalarType::Float);
  const int64_t queries = distance.size(0), gallery = distance.size(1);
  check_ids(query_ids, "query_ids", queries, distance, "distance");
  check_ids(gallery_ids, "gallery_ids", gallery, distance, "distance");
  check(!query_cams == !gallery_cams, query_cams ? "gallery_cams" : "query_cams",
        ": expected cameras for query and gallery or for neither, got None");
  if (query_cams) check_ids(*query_cams, "query_cams", queries, distance, "distance");
  if (gallery_cams) check_ids(*gallery_cams, "gallery_cams", gallery, distance, "distance");
  check_range(max_rank, "max_rank", 1, int64_t{1} << 20);
}

}  // namespace ise_fast
