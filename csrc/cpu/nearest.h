// Exact nearest centroids from approximate similarities (a float32 matrix product), with a certificate.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <vector>

#include "matrix.h"
#include "rows.h"

namespace ise_fast {

// |library's inner product - exact one| <= this x ||f|| ||c||, for any order of summation; the 8 covers the rounding of
// the exact one to T, so that values that round to a tie are both candidates; the library may round the factors first.
template <class T>
double product_error(int64_t d) {
  return (d + 8) * static_cast<double>(std::numeric_limits<T>::epsilon()) / 2 * 1.01 +
         (sizeof(T) == 4 ? 2.02 * factor_rounding() : 0.0);
}

// The same for a feature of a given length, and with what is lost below the smallest normal number.
template <class T>
class ProductError {
public:
  ProductError(int64_t d, double longest_centroid)
      : relative_(longest_centroid * product_error<T>(d)),
        absolute_(static_cast<double>(d) * std::numeric_limits<T>::min()) {}
  double operator()(double feature_length) const { return relative_ * feature_length + absolute_; }

private:
  double relative_, absolute_;
};

template <class T>
struct Candidate {
  T similarity;
  int64_t index;
};

// The k best centroids of one row, own one excluded, by (similarity falling, index rising). The similarity is the
// fixed-order float64 inner product rounded to T.
//
// A centroid among the exact best k has an exact similarity of at least the k-th best approximate one less `error`, so
// an approximate one of at least that less 2 `error`: only those are computed exactly.
template <class T>
class NearestOfRow {
public:
  const std::vector<Candidate<T>>& find(const T* approximate, int64_t clusters, int64_t own, int64_t k, double error,
                                        const T* feature, const T* centroids, int64_t d) {
    const double threshold = kth_best(approximate, clusters, own, k) - 2 * error;
    found_.clear();
    for (int64_t j = 0; j < clusters; ++j) {
      if (approximate[j] < threshold || j == own) continue;  // NaN stays
      // Adding +0 turns -0 into +0.
      found_.push_back({static_cast<T>(inner_product(feature, centroids + j * d, d)) + T{0}, j});
    }
    std::partial_sort(found_.begin(), found_.begin() + k, found_.end(), [](const auto& a, const auto& b) {
      return a.similarity > b.similarity || (a.similarity == b.similarity && a.index < b.index);
    });
    found_.resize(k);
    return found_;
  }

private:
  double kth_best(const T* values, int64_t clusters, int64_t own, int64_t k) {
    best_.assign(k, -std::numeric_limits<T>::infinity());
    if (k > 16) {
      const T none = -std::numeric_limits<T>::infinity();  // NaN has no order: what became one stays
      best_.resize(clusters);
      std::transform(values, values + clusters, best_.begin(), [&](T value) { return std::max(none, value); });
      best_[own] = -std::numeric_limits<T>::infinity();
      std::nth_element(best_.begin(), best_.begin() + (k - 1), best_.end(), std::greater<T>());
      return best_[k - 1];
    }
    for (int64_t j = 0; j < clusters; ++j) {
      if (values[j] <= best_[k - 1] || j == own) continue;
      int64_t slot = k - 1;
      for (; slot > 0 && values[j] > best_[slot - 1]; --slot) best_[slot] = best_[slot - 1];
      best_[slot] = values[j];
    }
    return best_[k - 1];
  }

  std::vector<T> best_;
  std::vector<Candidate<T>> found_;
};

}  // namespace ise_fast
