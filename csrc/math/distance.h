// Distances that every back end agrees on bit for bit: float64, with the lanes and the fold of dot.h.
//
//   sqeuclidean  sum of (a_i - b_i)^2        differences first: equal rows are at distance 0, and nothing cancels
//   euclidean    its square root             compared by the square, so that rounding of the root makes no ties
//   cosine       1 - a.b / sqrt(a.a * b.b)   kept in [0, 2]; 1 if either row is zero
//
// Build without contraction (-ffp-contract=off, --fmad=false): a difference is not a float32, so its square rounds.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>

#include "dot.h"
#include "host_device.h"

namespace ise_fast {

enum class Metric { kSquaredEuclidean, kEuclidean, kCosine };

// What lane `lane` contributes to the squared distance.
template <class A, class B>
ISE_HOST_DEVICE double squared_distance_lane(const A* a, const B* b, int64_t d, int lane) {
  double sum = 0.0;
  for (int64_t i = lane; i < d; i += kDotLanes) {
    const double difference = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    sum += difference * difference;
  }
  return sum;
}

ISE_HOST_DEVICE double cosine_distance(double dot, double a_squared, double b_squared) {
  const double length = sqrt(a_squared * b_squared);
  const double distance = 1.0 - (length > 0.0 ? dot / length : 0.0);
  return distance < 0.0 ? 0.0 : distance > 2.0 ? 2.0 : distance;
}

// From the value that is compared to the value that is returned: the largest float32 for what is beyond it, since a
// graph has finite values.
ISE_HOST_DEVICE float returned_distance(double compared, Metric metric) {
  const double distance = metric == Metric::kEuclidean ? sqrt(compared) : compared;
  return static_cast<float>(distance < FLT_MAX ? distance : FLT_MAX);
}

// What the compared distance must not exceed. The Euclidean metric compares squares, as scikit-learn does, which rounds
// the square of the radius to the precision of the input, as far as it has normal numbers for it.
inline double compared_bound(double eps, Metric metric, bool single) {
  if (metric != Metric::kEuclidean) return eps;
  if (!single) return eps * eps;
  const auto rounded = static_cast<float>(eps);
  const float square = rounded * rounded;
  return std::isnormal(square) ? square : static_cast<double>(rounded) * rounded;
}

}  // namespace ise_fast
