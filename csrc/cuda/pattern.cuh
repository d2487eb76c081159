// Values of the entries (i, j) of a sparse pattern: sums over the columns of two rows, and their softmax. The orders of
// the sums are those of math/dot.h and csrc/cpu/k_reciprocal.h.
#pragma once

#include "../math/exp.h"
#include "csr.cuh"
#include "pair_sums.cuh"

namespace ise_fast {
namespace {

using Csr = DeviceCsr<int32_t, float>;

// value[first + l] for the lanes l in `votes`: the sum of Pair's terms of mine[c] and other[c] over the columns c of
// row `j` of `others`, each lane's own; by a warp, which reads and converts `mine` once for kPartners of them.
template <class Pair>
__device__ void evaluate_partners(const float* mine, const float* others, int64_t d, int32_t j, unsigned votes,
                                  double* value) {
  const int lane = threadIdx.x % kWarpSize;
  while (votes != 0) {
    int last = 0, place[kPartners];
    const float* partner[kPartners];
#pragma unroll
    for (int t = 0; t < kPartners; ++t) {  // fewer than that: the last one again
      if (votes != 0) last = __ffs(static_cast<int>(votes)) - 1;
      votes &= votes - 1;
      place[t] = last;
      partner[t] = others + static_cast<int64_t>(__shfl_sync(kWholeWarp, j, place[t])) * d;
    }
    double sum[kPartners];
    sum_partners<Pair>(mine, partner, d, sum);
#pragma unroll
    for (int t = 0; t < kPartners; ++t) {
      if (lane == place[t]) value[lane] = sum[t];
    }
  }
}

// Every entry of rows of x with rows of y, a warp a row.
template <class Pair>
__global__ void evaluate_pattern(const float* x, const float* y, int64_t d, const int64_t* indptr, int64_t rows,
                                 const int32_t* indices, double* value) {
  const int lane = threadIdx.x % kWarpSize;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kCsrWarps + threadIdx.x / kWarpSize;
  if (i >= rows) return;
  const int64_t end = indptr[i + 1];
  for (int64_t first = indptr[i]; first < end; first += kWarpSize) {
    const bool mine = first + lane < end;
    const unsigned votes = __ballot_sync(kWholeWarp, mine);
    evaluate_partners<Pair>(x + i * d, y, d, mine ? indices[first + lane] : 0, votes, value + first);
  }
}

// Rows with each other: (i, j) and (j, i) have the same bits, so one is evaluated where both are stored. Which of the
// two alternates with i + j: each row then has about half of its own, wherever its partners are.
__device__ inline bool is_mirror(int64_t i, int64_t j) {
  return (i + j) % 2 == 0 ? j < i : j > i;
}

// Where (j, i) is stored, -1 if it is not or if (i, j) is the one that is evaluated.
__device__ inline int64_t evaluated_at(const Csr& star, int64_t i, int32_t j) {
  return is_mirror(i, j) ? star.find(j, static_cast<int32_t>(i)) : -1;
}

template <class Pair>
__global__ void evaluate_entries(const float* x, int64_t d, Csr star, double* value) {
  const int lane = threadIdx.x % kWarpSize;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kCsrWarps + threadIdx.x / kWarpSize;
  if (i >= star.rows) return;
  const int64_t end = star.indptr[i + 1];
  for (int64_t first = star.indptr[i]; first < end; first += kWarpSize) {
    const bool mine = first + lane < end;
    const int32_t j = mine ? star.indices[first + lane] : 0;
    const unsigned votes = __ballot_sync(kWholeWarp, mine && evaluated_at(star, i, j) < 0);
    evaluate_partners<Pair>(x + i * d, x, d, j, votes, value + first);
  }
}

__global__ void copy_mirrored(Csr star, double* value) {
  const int lane = threadIdx.x % kWarpSize;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kCsrWarps + threadIdx.x / kWarpSize;
  if (i >= star.rows) return;
  for (int64_t p = star.indptr[i] + lane; p < star.indptr[i + 1]; p += kWarpSize) {
    const int64_t mirror = evaluated_at(star, i, star.indices[p]);
    if (mirror >= 0) value[p] = value[mirror];
  }
}

// For all entries; x [rows, d].
template <class Pair>
void symmetric_values(const Tensor& x, const Csr& star, double* value, cudaStream_t stream) {
  LAUNCH(evaluate_entries<Pair>, blocks_for(star.rows, kCsrWarps), kCsrThreads, 0, stream, x.const_data_ptr<float>(),
         x.size(1), star, value);
  LAUNCH(copy_mirrored, blocks_for(star.rows, kCsrWarps), kCsrThreads, 0, stream, star, value);
}

// v = numerator(p) over the sum of them for entries [begin, end), by a warp; they are added in float64 in ascending
// order, as on the CPU.
template <class Numerator>
__device__ void normalise_row(int64_t begin, int64_t end, const Numerator& numerator, float* v) {
  const int lane = threadIdx.x % kWarpSize;
  double sum = 0.0;
  for (int64_t first = begin; first < end; first += kWarpSize) {
    const int64_t p = first + lane;
    const float mine = p < end ? numerator(p) : 0.0f;
    if (p < end) v[p] = mine;
    for (int l = 0; l < kWarpSize; ++l) {
      const float term = __shfl_sync(kWholeWarp, mine, l);
      if (first + l < end) sum += term;
    }
  }
  for (int64_t p = begin + lane; p < end; p += kWarpSize) v[p] = static_cast<float>(v[p] / sum);
}

// Softmax of one row of inner products, by a warp.
__global__ void softmax_rows(const double* product, const int64_t* indptr, int64_t rows, float* v) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kCsrWarps + threadIdx.x / kWarpSize;
  if (i >= rows) return;
  const int64_t begin = indptr[i], end = indptr[i + 1];
  double best = -INFINITY;
  for (int64_t p = begin + threadIdx.x % kWarpSize; p < end; p += kWarpSize) best = Max{}(best, product[p]);
  best = warp_reduce(best, Max{});
  normalise_row(
      begin, end, [&](int64_t p) { return exp_nonpositive(static_cast<float>(2.0 * (product[p] - best))); }, v);
}

inline void softmax_of_rows(const double* product, const int64_t* indptr, int64_t rows, float* v, cudaStream_t stream) {
  if (rows == 0) return;
  LAUNCH(softmax_rows, blocks_for(rows, kCsrWarps), kCsrThreads, 0, stream, product, indptr, rows, v);
}

}  // namespace
}  // namespace ise_fast
