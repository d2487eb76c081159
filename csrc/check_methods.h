// Argument checks of the operators behind the other methods: what both back ends can tell from shapes and numbers.
#pragma once

#include <optional>

#include "check_graph.h"
#include "check_head.h"

namespace ise_fast {

// [B, d] and [R, d], both float32 or, on a CPU, both float64; B >= 1.
inline void check_batch(const Tensor& features, const Tensor& table, const char* table_name) {
  check_dim(features, "features", 2);
  if (features.is_cuda() || features.scalar_type() != ScalarType::Double) {
    check_dtype(features, "features", ScalarType::Float);
  }
  check_dim(table, table_name, 2);
  check_dtype(table, table_name, features.scalar_type());
  check(features.size(0) > 0 && features.size(1) > 0, "features: expected at least one row and one column, got shape ",
        shape_of(features));
  check_size(table, table_name, 1, features.size(1));
  check_same_device(table, table_name, features, "features");
  check(table.size(0) < (int64_t{1} << 31), table_name, ": expected fewer than 2^31 rows, got ", table.size(0));
}

// [rows, columns] of integers on the device of `like`.
inline void check_index_matrix(const Tensor& index, const char* name, int64_t rows, const Tensor& like) {
  check_dim(index, name, 2);
  check_dtype(index, name, ScalarType::Long);
  check_size(index, name, 0, rows);
  check_same_device(index, name, like, "features");
}

inline void check_soft_nce_loss(const Tensor& features, const Tensor& table, const Tensor& columns,
                                const Tensor& weights, double temperature, const std::optional<Tensor>& smooth,
                                int64_t negatives, const std::optional<Tensor>& ranges,
                                const std::optional<Tensor>& excluded) {
  check_batch(features, table, "table");
  const int64_t rows = features.size(0);
  check_index_matrix(columns, "columns", rows, features);
  check_dim(weights, "weights", 2);
  check_dtype(weights, "weights", features.scalar_type());
  check_size(weights, "weights", 0, rows);
  check_size(weights, "weights", 1, columns.size(1));
  check_same_device(weights, "weights", features, "features");
  check_positive(temperature, "temperature");
  check(negatives >= 0, "negatives: expected at least 0, got ", negatives);
  if (smooth) {
    check_dim(*smooth, "smooth", 1);
    check_dtype(*smooth, "smooth", features.scalar_type());
    check_size(*smooth, "smooth", 0, rows);
    check_same_device(*smooth, "smooth", features, "features");
  }
  if (ranges) {
    check_index_matrix(*ranges, "ranges", rows, features);
    check_size(*ranges, "ranges", 1, 2);
  }
  if (excluded) check_index_matrix(*excluded, "excluded", rows, features);
}

inline void check_group_nce_loss(const Tensor& features, const Tensor& sums, const Tensor& counts, const Tensor& labels,
                                 double temperature, double eps) {
  check_batch(features, sums, "sums");
  check_dim(counts, "counts", 1);
  check_dtype(counts, "counts", ScalarType::Long);
  check_size(counts, "counts", 0, sums.size(0));
  check_same_device(counts, "counts", features, "features");
  check_labels(labels, features.size(0));
  check_same_device(labels, "labels", features, "features");
  check_positive(temperature, "temperature");
  check(eps >= 0 && std::isfinite(eps), "eps: expected a finite number of at least 0, got ", eps);
}

inline void check_loss_backward(const Tensor& grad, const Tensor& features, const Tensor& gradient) {
  check_cluster_nce_loss_backward(grad, features, gradient);
}

inline void check_refresh_groups(const Tensor& sums, const Tensor& table, const Tensor& indptr, const Tensor& rows,
                                 const Tensor& touched) {
  check_dim(table, "table", 2);
  if (table.is_cuda() || table.scalar_type() != ScalarType::Double) check_matrix(table, "table");
  check_dim(sums, "sums", 2);
  check(sums.scalar_type() == table.scalar_type() || sums.scalar_type() == ScalarType::Double,
        "sums: expected the dtype of table or float64, got ", dtype_name(sums.scalar_type()));
  check_size(sums, "sums", 1, table.size(1));
  check_contiguous(sums, "sums");
  for (const auto& [tensor, name] :
       {std::pair(&indptr, "members.indptr"), {&rows, "members.rows"}, {&touched, "touched"}}) {
    check_dim(*tensor, name, 1);
    check_dtype(*tensor, name, ScalarType::Long);
    check_same_device(*tensor, name, table, "table");
  }
  check_same_device(sums, "sums", table, "table");
  check_size(indptr, "members.indptr", 0, sums.size(0) + 1);
}

inline void check_kmeans_step(const Tensor& x, const Tensor& centres) {
  check_dim(x, "x", 2);
  if (x.is_cuda() || x.scalar_type() != ScalarType::Double) check_dtype(x, "x", ScalarType::Float);
  check_dim(centres, "centres", 2);
  check_dtype(centres, "centres", x.scalar_type());
  check(x.size(1) > 0, "x: expected at least one column, got shape ", shape_of(x));
  check_size(centres, "centres", 1, x.size(1));
  check_same_device(centres, "centres", x, "x");
  check(centres.size(0) > 0, "centres: expected at least one row, got shape ", shape_of(centres));
  check(x.size(0) < (int64_t{1} << 31) && centres.size(0) < (int64_t{1} << 31),
        "x: expected fewer than 2^31 rows, got shape ", shape_of(x));
}

inline void check_kmeans_start(const Tensor& x, const Tensor& draws) {
  check_dim(x, "x", 2);
  if (x.is_cuda() || x.scalar_type() != ScalarType::Double) check_dtype(x, "x", ScalarType::Float);
  check(x.size(1) > 0, "x: expected at least one column, got shape ", shape_of(x));
  check(x.size(0) < (int64_t{1} << 31), "x: expected fewer than 2^31 rows, got ", x.size(0));
  check_dim(draws, "draws", 1);
  check_dtype(draws, "draws", ScalarType::Double);
  check_same_device(draws, "draws", x, "x");
  check(draws.numel() >= 1 && draws.numel() <= x.size(0), "draws: expected 1 to ", x.size(0), " (rows of x), got ",
        draws.numel());
}

inline void check_kmeans(const Tensor& x, const Tensor& centres, int64_t iterations) {
  check_kmeans_step(x, centres);
  check(centres.size(0) <= x.size(0), "centres: expected 1 to ", x.size(0), " rows (rows of x), got shape ",
        shape_of(centres));
  check(iterations >= 1, "iterations: expected at least 1, got ", iterations);
}

inline void check_merge_nearest(const Tensor& indptr, const Tensor& indices, const Tensor& values, const Tensor& labels,
                                double penalty, int64_t merges) {
  check_csr_tensors(indptr, indices, values);
  check(indptr.size(0) <= (int64_t{1} << 31) - 1, "indptr: expected fewer than 2^31 - 1 rows, got ",
        indptr.size(0) - 1);
  check_labels(labels, indptr.size(0) - 1);
  check_same_device(labels, "labels", indptr, "indptr");
  check(penalty >= 0 && std::isfinite(penalty), "penalty: expected a finite number of at least 0, got ", penalty);
  check(merges >= 0, "merges: expected at least 0, got ", merges);
}

inline void check_cycle_positives(const Tensor& table, const Tensor& rows, double threshold, int64_t least) {
  check_dim(table, "table", 2);
  if (table.is_cuda() || table.scalar_type() != ScalarType::Double) check_matrix(table, "table");
  check(table.size(1) > 0, "table: expected at least one column, got shape ", shape_of(table));
  check(table.size(0) < (int64_t{1} << 31), "table: expected fewer than 2^31 rows, got ", table.size(0));
  check_dim(rows, "rows", 1);
  check_dtype(rows, "rows", ScalarType::Long);
  check_same_device(rows, "rows", table, "table");
  check(std::isfinite(threshold), "threshold: expected a finite number, got ", threshold);
  check(least >= 1, "least: expected at least 1, got ", least);
}

inline void check_multi_label_loss(const Tensor& features, const Tensor& table, const Tensor& indptr,
                                   const Tensor& indices, double delta, double hard_share) {
  check_batch(features, table, "table");
  check_dim(indptr, "positives.indptr", 1);
  check_dtype(indptr, "positives.indptr", ScalarType::Long);
  check_size(indptr, "positives.indptr", 0, features.size(0) + 1);
  check_dim(indices, "positives.indices", 1);
  check_dtype(indices, "positives.indices", ScalarType::Int);
  check_same_device(indptr, "positives.indptr", features, "features");
  check_same_device(indices, "positives.indices", features, "features");
  check(delta >= 0 && std::isfinite(delta), "delta: expected a finite number of at least 0, got ", delta);
  check(0 < hard_share && hard_share <= 1, "hard_share: expected a number in (0, 1], got ", hard_share);
}

// Row i of the positives, whose tensors have `listed` columns in all; returns how many hard negatives it leaves.
inline int64_t check_positives(const int64_t* indptr, const int32_t* indices, int64_t listed, int64_t i, int64_t rows,
                               double hard_share) {
  const int64_t begin = indptr[i], end = indptr[i + 1];
  check(0 <= begin && begin <= end && end <= listed && (i > 0 || begin == 0),
        "positives.indptr: expected offsets from 0 to ", listed, " that never fall, got ", begin, " and ", end,
        " for row ", i);
  check(begin < end, "positives: expected at least one column a row, got none in row ", i);
  for (int64_t p = begin; p < end; ++p) {
    check(0 <= indices[p] && indices[p] < rows, "positives.indices: expected 0 to ", rows - 1, ", got ", indices[p],
          " in row ", i);
    check(p == begin || indices[p - 1] < indices[p],
          "positives.indices: expected ascending columns without repeats, got ", indices[p], " in row ", i);
  }
  const auto hard = static_cast<int64_t>(hard_share * static_cast<double>(rows - (end - begin)));
  check(hard >= 1, "hard_share: expected at least one hard negative, got int(", hard_share, " * ", rows - (end - begin),
        ") = 0 in row ", i);
  return hard;
}

}  // namespace ise_fast
