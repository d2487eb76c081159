// Argument checks of the ISE head: what both back ends can tell from shapes and numbers alone.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
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

// float32 or, on a CPU, float64.
inline void check_working_dtype(const Tensor& tensor, const char* name) {
  if (tensor.is_cuda() || tensor.scalar_type() != ScalarType::Double) check_dtype(tensor, name, ScalarType::Float);
}

// float16 or bfloat16, which the losses take too: mixed precision.
inline bool is_short(const Tensor& tensor) {
  return tensor.scalar_type() == ScalarType::Half || tensor.scalar_type() == ScalarType::BFloat16;
}

// What is computed and returned of such numbers is float32.
inline ScalarType working_dtype(const Tensor& tensor) {
  return is_short(tensor) ? ScalarType::Float : tensor.scalar_type();
}

// float32, float16, bfloat16 or, on a CPU, float64 where that is allowed.
inline void check_mixed_dtype(const Tensor& tensor, const char* name, bool allow_double = true) {
  const ScalarType type = working_dtype(tensor);
  check(type == ScalarType::Float || (type == ScalarType::Double && allow_double && !tensor.is_cuda()), name,
        ": expected float32, float16 or bfloat16, got ", dtype_name(type));
}

// Features with centroids and labels: [B, d] and [K, d], both float32 or, on a CPU, both float64; with `mixed`, each of
// both may be float16 or bfloat16 in the place of float32.
inline void check_head(const Tensor& features, const Tensor& centroids, const Tensor& labels, bool mixed = false) {
  check_dim(features, "features", 2);
  mixed ? check_mixed_dtype(features, "features") : check_working_dtype(features, "features");
  check_dim(centroids, "centroids", 2);
  if (mixed && working_dtype(features) == ScalarType::Float) {
    check_mixed_dtype(centroids, "centroids", false);
  } else {
    check_dtype(centroids, "centroids", features.scalar_type());
  }
  check(features.size(1) > 0, "features: expected at least one column, got shape ", shape_of(features));
  check_size(centroids, "centroids", 1, features.size(1));
  check_labels(labels, features.size(0));
  check_same_device(centroids, "centroids", features, "features");
  check_same_device(labels, "labels", features, "features");
}

// Arguments of nearest_centroids: what both back ends can tell from shapes alone.
inline void check_nearest_centroids(const Tensor& features, const Tensor& centroids, const Tensor& labels, int64_t k,
                                    bool mixed = false) {
  check_head(features, centroids, labels, mixed);
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
  check_dim(features, "features", 2);
  check_working_dtype(features, "features");
  check_dim(supports, "supports", 3);
  check_size(supports, "supports", 0, features.size(0));
  check_size(supports, "supports", 2, features.size(1));
  check_dim(grad, "grad", 3);
  for (int dim = 0; dim < 3; ++dim) check_size(grad, "grad", dim, supports.size(dim));
  check_dim(norm, "norm", 2);
  for (int dim = 0; dim < 2; ++dim) check_size(norm, "norm", dim, supports.size(dim));
  for (const auto& [tensor, name] : {std::pair(&grad, "grad"), {&supports, "supports"}, {&norm, "norm"}}) {
    check_dtype(*tensor, name, features.scalar_type());
    check_same_device(*tensor, name, features, "features");
  }
  check_contiguous(supports, "supports");
  check_contiguous(norm, "norm");
}

inline void check_cluster_nce_loss(const Tensor& features, const Tensor& labels, const Tensor& centroids,
                                   double temperature) {
  check_head(features, centroids, labels, true);
  check(features.size(0) > 0, "features: expected at least one row, got shape ", shape_of(features));
  check_positive(temperature, "temperature");
}

inline void check_gram(const Tensor& gram, const Tensor& centroids) {
  check_dim(gram, "gram", 2);
  check_dtype(gram, "gram", working_dtype(centroids));
  check_size(gram, "gram", 0, centroids.size(0));
  check_size(gram, "gram", 1, centroids.size(0));
  check_same_device(gram, "gram", centroids, "centroids");
}

inline void check_ise_loss(const Tensor& features, const Tensor& labels, const Tensor& centroids, double degree,
                           int64_t k, double temperature, double lp_temperature, double lp_weight,
                           const std::optional<Tensor>& gram, const std::optional<Tensor>& degree_tensor) {
  check_nearest_centroids(features, centroids, labels, k, true);
  check_cluster_nce_loss(features, labels, centroids, temperature);
  check_unit_interval(degree, "degree");
  check_positive(lp_temperature, "lp_temperature");
  check(lp_weight >= 0 && std::isfinite(lp_weight), "lp_weight: expected a finite number of at least 0, got ",
        lp_weight);
  if (gram) check_gram(*gram, centroids);
  if (degree_tensor) {
    check_dim(*degree_tensor, "degree", 0);
    check_dtype(*degree_tensor, "degree", ScalarType::Double);
    check_same_device(*degree_tensor, "degree", features, "features");
  }
}

// What the temperatures of the losses must not fall below: lengths over temperatures are exponents, in T and, for the
// label-preserving term, in float64.
template <class T>
void check_temperatures(double longest_centroid, double temperature, double longest_feature, double lp_temperature) {
  constexpr double kMost = std::numeric_limits<T>::max() / 4;
  check(1 / temperature <= kMost && longest_centroid / temperature <= kMost, "temperature: expected at least ",
        std::max(longest_centroid, 1.0) / kMost, " (a larger quotient leaves the range of the dtype), got ",
        temperature);
  constexpr double kMostDouble = 1e300;
  check(1 / lp_temperature <= kMostDouble && longest_feature / lp_temperature <= kMostDouble,
        "lp_temperature: expected at least ", std::max(longest_feature, 1.0) / kMostDouble, ", got ", lp_temperature);
}

// The gradient of a loss: a scalar of the losses' dtype on the features' device.
inline void check_loss_gradient(const Tensor& grad, const char* name, const Tensor& features) {
  check_dim(grad, name, 0);
  check_dtype(grad, name, working_dtype(features));
  check_same_device(grad, name, features, "features");
}

// What a forward pass kept for the backward one: of the shape of the features.
inline void check_kept_gradient(const Tensor& gradient, const char* name, const Tensor& features) {
  check_dim(gradient, name, 2);
  check_dtype(gradient, name, working_dtype(features));
  check_size(gradient, name, 0, features.size(0));
  check_size(gradient, name, 1, features.size(1));
  check_same_device(gradient, name, features, "features");
  check_contiguous(gradient, name);
}

inline void check_ise_loss_backward(const Tensor& grad_loss, const Tensor& grad_contrastive,
                                    const Tensor& grad_label_preserving, const Tensor& features,
                                    const Tensor& contrastive_gradient, const Tensor& lp_gradient) {
  check_dim(features, "features", 2);
  check_mixed_dtype(features, "features");
  check_loss_gradient(grad_loss, "grad_loss", features);
  check_loss_gradient(grad_contrastive, "grad_contrastive", features);
  check_loss_gradient(grad_label_preserving, "grad_label_preserving", features);
  check_kept_gradient(contrastive_gradient, "contrastive_gradient", features);
  if (lp_gradient.dim() == 2 && lp_gradient.size(0) == 0) {  // the label-preserving term was left out
    check_dtype(lp_gradient, "lp_gradient", working_dtype(features));
    check_same_device(lp_gradient, "lp_gradient", features, "features");
    return;
  }
  check_kept_gradient(lp_gradient, "lp_gradient", features);
}

inline void check_cluster_nce_loss_backward(const Tensor& grad, const Tensor& features, const Tensor& gradient) {
  check_dim(features, "features", 2);
  check_mixed_dtype(features, "features");
  check_loss_gradient(grad, "grad", features);
  check_kept_gradient(gradient, "gradient", features);
}

// A matrix to write into: no two of its elements may be one number in memory, as in an expanded tensor.
inline void check_apart(const Tensor& tensor, const char* name) {
  const int64_t rows = tensor.size(0), columns = tensor.size(1);
  const int64_t down = tensor.stride(0), across = tensor.stride(1);
  // Elements of one line are apart, and a step to the next line passes them all.
  const auto steps_over = [](int64_t lines, int64_t step, int64_t count, int64_t stride) {
    return (count <= 1 || stride >= 1) && (lines <= 1 || (count <= 1 ? step >= 1 : step / count >= stride));
  };
  check(steps_over(rows, down, columns, across) || steps_over(columns, across, rows, down), name,
        ": expected elements that share no memory, got strides [", down, ", ", across, "] for shape ",
        shape_of(tensor));
}

inline void check_update_memory(const Tensor& centroids, const Tensor& rows, const Tensor& labels,
                                const std::optional<Tensor>& supports, double momentum, const std::string& mode) {
  check_dim(centroids, "centroids", 2);
  check_working_dtype(centroids, "centroids");
  check_apart(centroids, "centroids");
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
  check_working_dtype(centroids, "centroids");
  check_gram(gram, centroids);
  check_contiguous(gram, "gram");
  if (labels) {
    check_labels(*labels, labels->numel());
    check_same_device(*labels, "labels", centroids, "centroids");
  }
}

}  // namespace ise_fast
