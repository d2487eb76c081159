// Argument checks of knn and radius_graph.
#pragma once

#include <cmath>
#include <string>

#include "check.h"
#include "math/distance.h"

namespace ise_fast {

// The name of a metric, as Python users write it.
inline Metric check_metric(const std::string& metric) {
  if (metric == "sqeuclidean") return Metric::kSquaredEuclidean;
  if (metric == "euclidean") return Metric::kEuclidean;
  check(metric == "cosine", "metric: expected sqeuclidean, euclidean or cosine, got '", metric, "'");
  return Metric::kCosine;
}

// Rows to compare: at least one column, and few enough for 32-bit indices.
inline void check_rows(const Tensor& tensor, const char* name) {
  check_dim(tensor, name, 2);
  check(tensor.size(1) > 0, name, ": expected at least one column, got shape ", shape_of(tensor));
  check(tensor.size(0) < (int64_t{1} << 31), name, ": expected fewer than 2^31 rows, got ", tensor.size(0));
}

// Columns of the cascade's prefix, an argument that only tests set: 0 chooses, -1 and -2 are other ways to search.
inline void check_width(int64_t width) {
  check_range(width, "width", -2, int64_t{1} << 30);
}

// y is null when not given.
inline Metric check_knn(const Tensor& x, int64_t k, const Tensor* y, const std::string& metric) {
  check_rows(x, "x");
  check_dtype(x, "x", ScalarType::Float);
  if (y != nullptr) {
    check_rows(*y, "y");
    check_dtype(*y, "y", ScalarType::Float);
    check_size(*y, "y", 1, x.size(1));
    check_same_device(*y, "y", x, "x");
  }
  check(k >= 1 && k <= x.size(0), "k: expected 1 to ", x.size(0), " (rows of x), got ", k);
  return check_metric(metric);
}

inline Metric check_radius_graph(const Tensor& x, double eps, const std::string& metric) {
  check_rows(x, "x");
  check(x.scalar_type() == ScalarType::Float || x.scalar_type() == ScalarType::Double,
        "x: expected float32 or float64, got ", dtype_name(x.scalar_type()));
  check(eps >= 0 && std::isfinite(eps), "eps: expected a finite number of at least 0, got ", eps);
  return check_metric(metric);
}

// Besides check_radius_graph. `same`: y holds the rows of x.
inline void check_radius_pairs(const Tensor& x, const Tensor& y, bool same) {
  check_rows(y, "y");
  check_dtype(y, "y", x.scalar_type());
  check_size(y, "y", 1, x.size(1));
  check_same_device(y, "y", x, "x");
  check(!same || x.size(0) == y.size(0), "same: expected as many rows in y as in x, ", x.size(0), ", got ", y.size(0));
}

}  // namespace ise_fast
