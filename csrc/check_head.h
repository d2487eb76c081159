// Argument checks of the ISE head: what both back ends can tell from shapes and numbers alone.
#pragma once

#include <cmath>
#include <optional>
#include <string>

#include "check.h"

namespace ise_fast {

inline void check_unit_interval(double value, const char* name) {
  check(0 <= value && value <= 1, name, ": expected a number in [0, 1], got ", value);
}

inline void check_positive(double value, const char* name) {
  check(value > 0 && std::isfinite(value), name, ": expected a finite number above 0, got ", value);
}

inline void check_contiguous(const Tensor& tensor, const char* name) {
  check(tensor.is_contiguous(), name, ": expected a contiguous tensor");
}

// Features with centroids and labels: [B, d] and [K, d], both float32 or, on a CPU, both float64.
inline void check_head(const Tensor& features, const Tensor& centroids, const Tensor& labels) {
  check_dim(features, "features", 2);
  if (features.is_cuda() || features.scalar_type() != ScalarType::Double) {
    check_dtype(features, "features", ScalarType::Float);
  }
  check_dim(centroids, "centroids", 2);
  check_dtype(centroids, "centroids", features.scalar_type());
  check(features.size(1) > 0, "features: expected at least one column, got shape ", shape_of(features));
  check_size(centroids, "centroids", 1, features.size(1));
  check_labels(labels, features.size(0));
  check_same_device(centroids, "centroids", features, "features");
  check_same_device(labels, "labels", features, "features");
}

// Arguments of nearest_centroids: what both back ends can tell from shapes alone.
inline void check_nearest_centroids(const Tensor& features, const Tensor& centroids, const Tensor& labels, int64_t k) {
  check_head(features, centroids, labels);
  check(k >= 1 && k < centroids.size(0), "k: expected 1 to ", centroids.size(0) - 1,
        " (number of centroids, own one excluded), got ", k);
}

inline void check_support_samples(const Tensor& features, const Tensor& centroids, const Tensor& labels,
                                  const Tensor& nearest, double degree) {
  check_head(features, centroids, labels);
  check_dim(nearest, "nearest", 2);
  check_dtype(nearest, "nearest", ScalarType::Long);
  check_size(nearest, "nearest", 0, features.size(0));
  check_same_device(nearest, "nearest", features, "features");
  check_unit_interval(degree, "degree");
}

inline void check_support_samples_backward(const Tensor& grad, const Tensor& features, const Tensor& supports,
                                           const Tensor& norm) {
  check_dim(supports, "supports", 3);
  check_dim(grad, "grad", 3);
  for (int dim = 0; dim < 3; ++dim) check_size(grad, "grad", dim, supports.size(dim));
  for (const auto& [tensor, name] : {std::pair(&grad, "grad"), {&supports, "supports"}, {&norm, "norm"}}) {
    check_dtype(*tensor, name, features.scalar_type());
    check_same_device(*tensor, name, features, "features");
  }
  check_contiguous(supports, "supports");
  check_contiguous(norm, "norm");
}

inline void check_cluster_nce_loss(const Tensor& features, const Tensor& labels, const Tensor& centroids,
                                   double temperature) {
  check_head(features, centroids, labels);
  check(features.size(0) > 0, "features: expected at least one row, got shape ", shape_of(features));
  check_positive(temperature, "temperature");
}

inline void check_gram(const Tensor& gram, const Tensor& centroids) {
  check_dim(gram, "gram", 2);
  check_dtype(gram, "gram", centroids.scalar_type());
  check_size(gram, "gram", 0, centroids.size(0));
  check_size(gram, "gram", 1, centroids.size(0));
  check_same_device(gram, "gram", centroids, "centroids");
}

inline void check_ise_loss(const Tensor& features, const Tensor& labels, const Tensor& centroids, double degree,
                           int64_t k, double temperature, double lp_temperature, double lp_weight,
                           const std::optional<Tensor>& gram) {
  check_nearest_centroids(features, centroids, labels, k);
  check_cluster_nce_loss(features, labels, centroids, temperature);
  check_unit_interval(degree, "degree");
  check_positive(lp_temperature, "lp_temperature");
  check(lp_weight >= 0 && std::isfinite(lp_weight), "lp_weight: expected a finite number of at least 0, got ",
        lp_weight);
  if (gram) check_gram(*gram, centroids);
}

// lp_gradient has no rows where the label-preserving term was left out.
inline void check_ise_loss_backward(const Tensor& features, const Tensor& contrastive_gradient,
                                    const Tensor& lp_gradient) {
  for (const auto& [tensor, name] :
       {std::pair(&contrastive_gradient, "contrastive_gradient"), {&lp_gradient, "lp_gradient"}}) {
    check_dim(*tensor, name, 2);
    check_dtype(*tensor, name, features.scalar_type());
    if (tensor != &lp_gradient || tensor->size(0) > 0) check_size(*tensor, name, 0, features.size(0));
    check_size(*tensor, name, 1, features.size(1));
    check_same_device(*tensor, name, features, "features");
    check_contiguous(*tensor, name);
  }
}

inline void check_update_memory(const Tensor& centroids, const Tensor& rows, const Tensor& labels,
                                const std::optional<Tensor>& supports, double momentum, const std::string& mode) {
  check_dim(centroids, "centroids", 2);
  if (centroids.is_cuda() || centroids.scalar_type() != ScalarType::Double) {
    check_dtype(centroids, "centroids", ScalarType::Float);
  }
  check_dim(rows, "rows", 2);
  check_dtype(rows, "rows", centroids.scalar_type());
  check_size(rows, "rows", 1, centroids.size(1));
  check_same_device(rows, "rows", centroids, "centroids");
  check_labels(labels, rows.size(0));
  check_same_device(labels, "labels", centroids, "centroids");
  if (supports) {
    check_dim(*supports, "supports", 3);
    check_dtype(*supports, "supports", centroids.scalar_type());
    check_size(*supports, "supports", 0, rows.size(0));
    check_size(*supports, "supports", 2, centroids.size(1));
    check_same_device(*supports, "supports", centroids, "centroids");
  }
  check_unit_interval(momentum, "momentum");
  check(mode == "hard" || mode == "momentum", "mode: expected one of hard, momentum, got '", mode, "'");
}

inline void check_refresh_gram(const Tensor& gram, const Tensor& centroids, const std::optional<Tensor>& labels) {
  check_dim(centroids, "centroids", 2);
  check_gram(gram, centroids);
  check_contiguous(gram, "gram");
  if (labels) {
    check_labels(*labels, labels->numel());
    check_same_device(*labels, "labels", centroids, "centroids");
  }
}

}  // namespace ise_fast
