// Float64 sums over the columns of one row with a few others, with the lanes and the fold of math/dot.h: the row is
// read and converted once for all of them, and their sums wait for memory together.
#pragma once

#include "../math/dot.h"
#include "reduce.cuh"

namespace ise_fast {
namespace {

constexpr int kPartners = 4;

// sum with the term of a column, for rows of T that were converted.
struct InnerProduct {
  template <class T>
  static __device__ double add(double sum, double a, double b) {
    return add_product<T, T>(sum, a, b);
  }
};
struct SquaredDistance {
  template <class T>
  static __device__ double add(double sum, double a, double b) {
    return sum + (a - b) * (a - b);
  }
};

// sum[t] of Pair's terms of mine[c] and partner[t][c] over the columns c, for every lane of the warp that calls it. No
// partner is null: where there are fewer, one comes twice, since loads behind branches would wait one after the other.
template <class Pair, class T>
__device__ void sum_partners(const T* mine, const T* const (&partner)[kPartners], int64_t d, double (&sum)[kPartners]) {
#pragma unroll
  for (int t = 0; t < kPartners; ++t) sum[t] = 0;
  for (int64_t c = threadIdx.x % kWarpSize; c < d; c += kWarpSize) {
    const double own = mine[c];
#pragma unroll
    for (int t = 0; t < kPartners; ++t) {
      sum[t] = Pair::template add<T>(sum[t], own, static_cast<double>(partner[t][c]));
    }
  }
#pragma unroll
  for (int t = 0; t < kPartners; ++t) sum[t] = warp_sum(sum[t]);
}

}  // namespace
}  // namespace ise_fast
