// What the operators of the ISE head share on the CPU: a batch of features with its labels and centroids, checked.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "../check_head.h"
#include "matrix.h"
#include "rows.h"
#include "tensors.h"

namespace ise_fast {

inline void check_label_values(const int64_t* label, int64_t count, int64_t clusters, const char* name = "labels",
                               int64_t columns = 1) {
  for (int64_t i = 0; i < count; ++i) {
    check(0 <= label[i] && label[i] < clusters, name, ": expected 0 to ", clusters - 1, ", got ", label[i], " at row ",
          i / columns);
  }
}

// Rows of `clusters`, each checked, as a copy: nobody can change it after the check.
inline std::vector<int64_t> checked_labels(const Tensor& labels, int64_t clusters, const char* name = "labels") {
  const Tensor dense = row_major(labels);
  const auto* first = dense.const_data_ptr<int64_t>();
  std::vector<int64_t> copy(first, first + dense.numel());
  check_label_values(copy.data(), dense.numel(), clusters, name, labels.dim() == 2 ? labels.size(1) : 1);
  return copy;
}

// Lengths of rows, which must be numbers of type T; NaN or infinity in one is an error.
template <class T>
std::vector<double> row_lengths(const T* rows, int64_t count, int64_t d, const char* name) {
  std::vector<double> lengths(count);
  parallel_for(0, count, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) lengths[i] = std::sqrt(inner_product(rows + i * d, rows + i * d, d));
  });
  for (int64_t i = 0; i < count; ++i) {
    if (lengths[i] <= std::numeric_limits<T>::max()) [[likely]]
      continue;
    const bool finite = std::all_of(rows + i * d, rows + (i + 1) * d, [](T value) { return std::isfinite(value); });
    check(finite, name, ": expected finite values, got NaN or infinity in row ", i);
    check(false, name, ": expected rows whose length ", sizeof(T) == 4 ? "float32" : "float64",
          " can hold, got a longer one in row ", i);
  }
  return lengths;
}

// No inner product of a feature with a row of a table leaves the range of T, in whatever order it is summed.
template <class T>
void check_products(const std::vector<double>& feature_lengths, double longest, const char* table = "centroids",
                    const char* features = "features") {
  for (size_t i = 0; i < feature_lengths.size(); ++i) {
    check(feature_lengths[i] * longest <= std::numeric_limits<T>::max(), features, ": expected inner products with ",
          table, " that ", sizeof(T) == 4 ? "float32" : "float64", " can hold, got lengths of ", feature_lengths[i],
          " in row ", i, " and of up to ", longest);
  }
}

// A loss that T can hold; otherwise `name` is the argument that made it too large.
template <class T>
void check_result(double loss, const char* name) {
  check(std::abs(loss) <= std::numeric_limits<T>::max(), name,
        ": expected one for which the dtype can hold the loss, got ", loss);
}

template <class T>
void check_gradient(const Tensor& gradient, const char* name) {
  const auto* value = gradient.const_data_ptr<T>();
  const int64_t rows = gradient.size(0), d = gradient.size(1);
  std::vector<uint8_t> finite(rows);
  parallel_for(0, rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      bool all = true;  // without an early end, so that it is vectorised
      for (int64_t j = i * d; j < (i + 1) * d; ++j) all &= std::abs(value[j]) <= std::numeric_limits<T>::max();
      finite[i] = all;
    }
  });
  const auto bad = std::find(finite.begin(), finite.end(), 0) - finite.begin();
  if (bad == rows) return;
  const T* first = std::find_if_not(value + bad * d, value + (bad + 1) * d, [](T v) { return std::isfinite(v); });
  check(false, name, ": expected one for which the dtype can hold the gradient, got ", *first, " in row ", bad);
}

template <class T>
struct Head {
  Head(const Tensor& features, const Tensor& centroids, const Tensor& labels)
      : feature_tensor(factor(features)),
        centroid_tensor(factor(centroids)),
        labels_(checked_labels(labels, centroids.size(0))),
        feature(feature_tensor.const_data_ptr<T>()),
        centroid(centroid_tensor.const_data_ptr<T>()),
        label(labels_.data()),
        rows(features.size(0)),
        clusters(centroids.size(0)),
        d(features.size(1)) {
    norm = row_lengths(feature, rows, d, "features");
  }

  Matrix<const T> f() const { return {feature, rows, d, d}; }
  Matrix<const T> c() const { return {centroid, clusters, d, d}; }

  double longest_centroid() const {
    const std::vector<double> lengths = row_lengths(centroid, clusters, d, "centroids");
    return lengths.empty() ? 0.0 : *std::max_element(lengths.begin(), lengths.end());
  }

  // Rows whose products with all centroids are held at once: the batch, if that is at most 128 MB of float32.
  int64_t row_block() const {
    constexpr int64_t kScratch = int64_t{1} << 25;
    const int64_t all = std::max<int64_t>(rows, 1);
    return all * clusters <= kScratch ? all : std::min(all, std::clamp<int64_t>(kScratch / clusters, 64, 256));
  }

  const Tensor feature_tensor, centroid_tensor;
  const std::vector<int64_t> labels_;
  const T* const feature;
  const T* const centroid;
  const int64_t* const label;
  const int64_t rows, clusters, d;
  std::vector<double> norm;
};

}  // namespace ise_fast
