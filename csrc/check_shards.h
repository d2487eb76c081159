// Argument checks of the operators on a part of the rows (csrc/cpu/shard_*.cpp): what is not checked here is checked
// where it is read.
#pragma once

#include <string>

#include "check_graph.h"

namespace ise_fast {

// indptr [rows + 1] int64 and indices [nnz] int32 of rows whose columns may be rows of anything.
inline void check_pattern(const Tensor& indptr, const Tensor& indices) {
  check_dim(indptr, "indptr", 1);
  check_dtype(indptr, "indptr", ScalarType::Long);
  check(indptr.size(0) >= 1, "indptr: expected at least one element, got none");
  check_dim(indices, "indices", 1);
  check_dtype(indices, "indices", ScalarType::Int);
  check_same_device(indices, "indices", indptr, "indptr");
}

// Whether the products of a pattern are inner products; otherwise squared distances.
inline bool check_pattern_products(const Tensor& x, const Tensor& y, const Tensor& indptr, const Tensor& indices,
                                   const std::string& kind) {
  check_matrix(x, "x");
  check_matrix(y, "y");
  check_size(y, "y", 1, x.size(1));
  check(y.size(0) < (int64_t{1} << 31), "y: expected fewer than 2^31 rows, got ", y.size(0));
  check_pattern(indptr, indices);
  check_size(indptr, "indptr", 0, x.size(0) + 1);
  check_same_device(y, "y", x, "x");
  check_same_device(indptr, "indptr", x, "x");
  check(kind == "dot" || kind == "sqeuclidean", "kind: expected dot or sqeuclidean, got '", kind, "'");
  return kind == "dot";
}

inline void check_softmax_rows(const Tensor& product, const Tensor& indptr) {
  check_dim(product, "product", 1);
  check_dtype(product, "product", ScalarType::Double);
  check_dim(indptr, "indptr", 1);
  check_dtype(indptr, "indptr", ScalarType::Long);
  check(indptr.size(0) >= 1, "indptr: expected at least one element, got none");
  check_same_device(indptr, "indptr", product, "product");
}

// nn [N, k1] int32, the neighbours of all rows, and the rows [begin, end) to answer for.
inline void check_neighbour_range(const Tensor& nn, int64_t begin, int64_t end) {
  check_dim(nn, "nn", 2);
  check_dtype(nn, "nn", ScalarType::Int);
  check(nn.size(1) >= 1, "nn: expected at least one column, got shape ", shape_of(nn));
  check(nn.size(0) < (int64_t{1} << 31) - 1, "nn: expected fewer than 2^31 - 1 rows, got ", nn.size(0));
  check_range(end, "end", 0, nn.size(0));
  check_range(begin, "begin", 0, end);
}

inline void check_reciprocal_bits(const Tensor& nn, int64_t begin, int64_t end, int64_t width) {
  check_neighbour_range(nn, begin, end);
  check_range(width, "width", 1, nn.size(1));
}

inline void check_expanded_sets(const Tensor& nn, const Tensor& bits, int64_t width, int64_t begin, int64_t end) {
  check_reciprocal_bits(nn, begin, end, width);
  check_dim(bits, "bits", 2);
  check_dtype(bits, "bits", ScalarType::Byte);
  check_size(bits, "bits", 0, nn.size(0));
  check_size(bits, "bits", 1, (width + 7) / 8);
  check_same_device(bits, "bits", nn, "nn");
}

// Rows of weights: a CSR matrix of any number of columns.
inline void check_weights(const Tensor& indptr, const Tensor& indices, const Tensor& values) {
  check_pattern(indptr, indices);
  check_dim(values, "values", 1);
  check_dtype(values, "values", ScalarType::Float);
  check_size(values, "values", 0, indices.size(0));
  check_same_device(values, "values", indptr, "indptr");
}

inline void check_average_rows(const Tensor& indptr, const Tensor& indices, const Tensor& values,
                               const Tensor& neighbours) {
  check_weights(indptr, indices, values);
  check_dim(neighbours, "neighbours", 2);
  check_dtype(neighbours, "neighbours", ScalarType::Int);
  check(neighbours.size(1) >= 1, "neighbours: expected at least one column, got shape ", shape_of(neighbours));
  check_same_device(neighbours, "neighbours", indptr, "indptr");
}

inline void check_jaccard_pairs(double eps, int64_t max_pairs) {
  check(0 <= eps && static_cast<float>(eps) < 1, "eps: expected a number in [0, 1), got ", eps);
  check(max_pairs >= 0, "max_pairs: expected at least 0, got ", max_pairs);
}

inline void check_unite(const Tensor& parent, const Tensor& first, const Tensor& second) {
  check_dim(parent, "parent", 1);
  check_dtype(parent, "parent", ScalarType::Int);
  check(parent.size(0) <= 1 || parent.stride(0) >= 1, "parent: expected elements that share no memory, got stride ",
        parent.size(0) ? parent.stride(0) : 1);
  check_dim(first, "first", 1);
  check_dtype(first, "first", ScalarType::Int);
  check_dim(second, "second", 1);
  check_dtype(second, "second", ScalarType::Int);
  check_size(second, "second", 0, first.size(0));
  check_same_device(first, "first", parent, "parent");
  check_same_device(second, "second", parent, "parent");
}

}  // namespace ise_fast
