// What the operators of the ISE head share on the CPU: a batch of features with its labels and centroids, checked.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "../check_head.h"
#include "matrix.h"
#include "rows.h"

namespace ise_fast {

inline void check_label_values(const int64_t* label, int64_t rows, int64_t clusters, const char* name = "labels") {
  for (int64_t i = 0; i < rows; ++i) {
    check(0 <= label[i] && label[i] < clusters, name, ": expected 0 to ", clusters - 1, ", got ", label[i], " at row ",
          i);
  }
}

// Lengths of rows; NaN or infinity in one is an error.
template <class T>
std::vector<double> row_lengths(const T* rows, int64_t count, int64_t d, const char* name) {
  std::vector<double> lengths(count);
  torch::stable::parallel_for(0, count, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) lengths[i] = std::sqrt(inner_product(rows + i * d, rows + i * d, d));
  });
  for (int64_t i = 0; i < count; ++i) {
    check(std::isfinite(lengths[i]), name, ": expected finite values, got NaN or infinity in row ", i);
  }
  return lengths;
}

template <class T>
struct Head {
  Head(const Tensor& features, const Tensor& centroids, const Tensor& labels)
      : feature_tensor(torch::stable::contiguous(features)),
        centroid_tensor(torch::stable::contiguous(centroids)),
        label_tensor(torch::stable::contiguous(labels)),
        feature(feature_tensor.const_data_ptr<T>()),
        centroid(centroid_tensor.const_data_ptr<T>()),
        label(label_tensor.const_data_ptr<int64_t>()),
        rows(features.size(0)),
        clusters(centroids.size(0)),
        d(features.size(1)) {
    check_label_values(label, rows, clusters);
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

  const Tensor feature_tensor, centroid_tensor, label_tensor;
  const T* const feature;
  const T* const centroid;
  const int64_t* const label;
  const int64_t rows, clusters, d;
  std::vector<double> norm;
};

}  // namespace ise_fast
