// Exact distances of the pairs that the filter leaves (pair_filter.cuh), with the bits of math/distance.h. A whole warp
// calls these functions.
#pragma once

#include "pair_filter.cuh"
#include "pair_sums.cuh"

namespace ise_fast {
namespace {

// The compared distance of query i and base row j; every lane receives it.
template <class T>
__device__ double exact_distance(const FilterRows<T>& query, const FilterRows<T>& base, Metric metric, int64_t i,
                                 int64_t j) {
  const int lane = threadIdx.x % kWarpSize;
  const T *a = query.original + i * base.d, *b = base.original + j * base.d;
  if (metric != Metric::kCosine) return warp_sum(squared_distance_lane(a, b, base.d, lane));
  return cosine_distance(warp_sum(dot_lane(a, b, base.d, lane)), query.squared[i], base.squared[j]);
}

// Those of query i and up to kPartners base rows, `row(t)` for t < count: lane t receives the t-th.
template <class T, class Row>
__device__ double exact_distances(const FilterRows<T>& query, const FilterRows<T>& base, Metric metric, int64_t i,
                                  int count, const Row& row) {
  const int lane = threadIdx.x % kWarpSize;
  const T* partner[kPartners];
#pragma unroll
  for (int t = 0; t < kPartners; ++t) partner[t] = base.original + row(t < count ? t : 0) * base.d;
  double sum[kPartners];
  if (metric == Metric::kCosine) {
    sum_partners<InnerProduct>(query.original + i * base.d, partner, base.d, sum);
  } else {
    sum_partners<SquaredDistance>(query.original + i * base.d, partner, base.d, sum);
  }
  double own = sum[0];
#pragma unroll
  for (int t = 1; t < kPartners; ++t) own = lane == t ? sum[t] : own;
  if (metric != Metric::kCosine || lane >= count) return own;
  return cosine_distance(own, query.squared[i], base.squared[row(lane)]);
}

}  // namespace
}  // namespace ise_fast
