// Argument checks of the pseudo-label operators on sparse and dense graphs, used by the CPU and the CUDA operators.
#pragma once

#include <limits>
#include <tuple>

#include "check.h"

namespace ise_fast {

// A sparse graph as operators return it: indptr [rows + 1] int64, indices [nnz] int32, values [nnz] float32.
using CsrTensors = std::tuple<Tensor, Tensor, Tensor>;

// What a square graph's entry may be; `last` is the column before it in its row, -1 if it comes first.
inline void check_csr_entry(int64_t column, int64_t last, double value, int64_t rows, int64_t row) {
  check(0 <= column && column < rows, "indices: expected 0 to ", rows - 1, ", got ", column, " in row ", row);
  check(last < column, "indices: expected ascending columns without repeats, got ", column, " after ", last, " in row ",
        row);
  check(value >= 0 && value <= std::numeric_limits<double>::max(), "values: expected finite values of at least 0, got ",
        value, " in row ", row);
}

// The weights of a row of an encoding, which add up to 1. From 2 on, 1 - s / (2 - s) is no distance.
inline void check_weight_sum(double sum, int64_t row) {
  check(sum < 2, "values: expected weights that add up to less than 2 in a row, got ", sum, " in row ", row);
}

inline void check_csr_offsets(int64_t low, int64_t high, int64_t row) {
  check(low <= high, "indptr: expected values that never fall, got ", low, " before ", high, " at row ", row);
}

inline void check_csr_ends(int64_t first, int64_t last, int64_t nnz) {
  check(first == 0, "indptr: expected 0 first, got ", first);
  check(last == nnz, "indptr: expected ", nnz, " (size of indices) last, got ", last);
}

// Arguments of k_reciprocal_encoding.
inline void check_k_reciprocal_encoding(const Tensor& x, const Tensor& nn, int64_t k2) {
  check_matrix(x, "x");
  check_dim(nn, "nn", 2);
  check_dtype(nn, "nn", ScalarType::Long);
  check_size(nn, "nn", 0, x.size(0));
  check_same_device(nn, "nn", x, "x");
  check(x.size(0) < (int64_t{1} << 31) - 1, "x: expected fewer than 2^31 - 1 rows, got ", x.size(0));
  check(nn.size(1) >= 1, "nn: expected at least one column, got shape ", shape_of(nn));
  check_range(k2, "k2", 1, nn.size(1));
}

// Shapes, dtypes and devices of the three tensors of a square sparse matrix.
inline void check_csr_tensors(const Tensor& indptr, const Tensor& indices, const Tensor& values) {
  check_dim(indptr, "indptr", 1);
  check_dtype(indptr, "indptr", ScalarType::Long);
  check(indptr.size(0) >= 1, "indptr: expected at least one element, got none");
  check_dim(indices, "indices", 1);
  check(indices.scalar_type() == ScalarType::Int || indices.scalar_type() == ScalarType::Long,
        "indices: expected int32 or int64, got ", dtype_name(indices.scalar_type()));
  check_dim(values, "values", 1);
  check(values.scalar_type() == ScalarType::Float || values.scalar_type() == ScalarType::Double,
        "values: expected float32 or float64, got ", dtype_name(values.scalar_type()));
  check_size(values, "values", 0, indices.size(0));
  check_same_device(indices, "indices", indptr, "indptr");
  check_same_device(values, "values", indptr, "indptr");
}

// The encoding V' that the Jaccard distance takes: int32 and float32.
inline void check_encoding(const Tensor& indptr, const Tensor& indices, const Tensor& values) {
  check_csr_tensors(indptr, indices, values);
  check_dtype(indices, "indices", ScalarType::Int);
  check_dtype(values, "values", ScalarType::Float);
  check(indptr.size(0) <= (int64_t{1} << 31) - 1, "indptr: expected fewer than 2^31 - 1 rows, got ",
        indptr.size(0) - 1);
}

// The entry at `position` of a dense [rows, rows] graph.
inline void check_dense_distance(double value, int64_t position, int64_t rows) {
  check(value >= 0 && value <= std::numeric_limits<double>::max(), "graph: expected finite values of at least 0, got ",
        value, " at row ", position / rows, ", column ", position % rows);
}

inline void check_eps(double eps) {
  check(0 <= eps && eps <= std::numeric_limits<double>::max(), "eps: expected a finite number of at least 0, got ",
        eps);
}

// Arguments of jaccard_graph. Unrelated rows are at distance 1, so an eps of 1 would mean all N^2 pairs.
inline void check_jaccard_graph(const Tensor& indptr, const Tensor& indices, const Tensor& values, double eps,
                                int64_t begin, int64_t end, int64_t max_pairs) {
  check_encoding(indptr, indices, values);
  check(0 <= eps && static_cast<float>(eps) < 1, "eps: expected a number in [0, 1), got ", eps);
  check_range(end, "end", 0, indptr.size(0) - 1);
  check_range(begin, "begin", 0, end);
  check(max_pairs >= 0, "max_pairs: expected at least 0, got ", max_pairs);
}

// Python recognises this refusal by its first word, and says which rows are everybody's neighbours.
inline void check_pair_count(int64_t found, int64_t max_pairs, double eps) {
  check(found <= max_pairs, "max_pairs: expected at most ", max_pairs, " pairs within eps = ", eps, ", got more");
}

// Arguments of dbscan on a sparse graph.
inline void check_dbscan(const Tensor& indptr, const Tensor& indices, const Tensor& values, double eps,
                         int64_t min_samples) {
  check_csr_tensors(indptr, indices, values);
  check(indptr.size(0) <= (int64_t{1} << 31) - 1, "indptr: expected fewer than 2^31 - 1 rows, got ",
        indptr.size(0) - 1);
  check_eps(eps);
  check(min_samples >= 1, "min_samples: expected at least 1, got ", min_samples);
}

// Arguments of dbscan on a dense matrix.
inline void check_dbscan_dense(const Tensor& graph, double eps, int64_t min_samples) {
  check_dim(graph, "graph", 2);
  check(graph.scalar_type() == ScalarType::Float || graph.scalar_type() == ScalarType::Double,
        "graph: expected float32 or float64, got ", dtype_name(graph.scalar_type()));
  check(graph.size(0) == graph.size(1), "graph: expected a square matrix, got shape ", shape_of(graph));
  check_eps(eps);
  check(min_samples >= 1, "min_samples: expected at least 1, got ", min_samples);
}

}  // namespace ise_fast
