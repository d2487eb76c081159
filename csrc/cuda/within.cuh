// The pairs of a tile of the product that are within a radius, in three passes: a bit for each pair that the scores do
// not rule out; exact distances of those, in place of their products, and no bit for those that are farther; what has a
// bit is written, columns ascending.
#pragma once

#include "exact_distance.cuh"

namespace ise_fast {
namespace {

constexpr int kMarkedRows = 4;  // of a warp, for which the terms of a base row are read once
constexpr int kListed = 1024;   // pairs of a row that its block spreads over its warps at once

struct Marks {
  unsigned* bits;       // [rows of the tile, words], a bit for each base row
  int64_t words, from;  // words before `from` are left out
  bool same;            // the queries are the base rows, and each is within the radius of itself
  bool half;            // only pairs (i, j) with j >= i

  // Where row i begins.
  __device__ int64_t begin(int64_t i) const { return half ? i / kWarpSize : from; }
};

// The smallest float32 that is not below `value`.
__device__ inline float not_below(double value) {
  const float near = static_cast<float>(value);
  return static_cast<double>(near) < value ? nextafterf(near, INFINITY) : near;
}

// Bits of a word that stand for column i and those after it.
__device__ inline unsigned bits_from(int64_t i, int64_t word) {
  const int64_t before = i - word * kWarpSize;
  return before <= 0 ? ~0u : before < kWarpSize ? ~0u << before : 0u;
}

// Marks the pairs of `count` queries whose scores, or bounds of them from below, are not above what `bound` and the
// margin allow. A warp takes kMarkedRows of them and 32 words, each word of a row ends in one lane. `marked`: how many
// in all (null: not counted).
template <class T>
__global__ void mark_pairs(const float* product, FilterRows<T> query, FilterRows<T> base, FilterUnits units,
                           Marks marks, Queries queries, int64_t count, double bound, unsigned long long* marked) {
  const int lane = threadIdx.x % kWarpSize;
  const int64_t across = (marks.words - marks.from + kWarpSize - 1) / kWarpSize;
  const int64_t r = (blockIdx.x / across * kFilterWarps + threadIdx.x / kWarpSize) * kMarkedRows;
  const int64_t first = marks.from + blockIdx.x % across * kWarpSize;
  if (r >= count || (marks.half && (first + kWarpSize) * kWarpSize <= queries[r])) return;

  const int64_t i = queries[Min{}(r + lane % kMarkedRows, count - 1)];
  const float limit = not_below(exact_score(query, units, i, bound) + score_margin(query, base, units, i));
  const float factor = query.terms[i].factor;
  float limits[kMarkedRows], factors[kMarkedRows];
  const float* row[kMarkedRows];
  unsigned found[kMarkedRows];
#pragma unroll
  for (int t = 0; t < kMarkedRows; ++t) {
    limits[t] = __shfl_sync(kWholeWarp, limit, t);
    factors[t] = __shfl_sync(kWholeWarp, factor, t);
    row[t] = product + Min{}(r + t, count - 1) * base.pitch;
    found[t] = 0;
  }
  for (int w = 0; w < kWarpSize && first + w < marks.words; ++w) {
    const int64_t j = (first + w) * kWarpSize + lane, there = Min{}(j, base.n - 1);
    const ScoreTerms terms = base.terms[there];
#pragma unroll
    for (int t = 0; t < kMarkedRows; ++t) {
      const bool possible = j < base.n && !(terms.of(row[t][there], factors[t]) > limits[t]);
      const unsigned mask = __ballot_sync(kWholeWarp, possible);
      if (lane == w) found[t] = mask;
    }
  }
  const int64_t word = first + lane;
  int seen = 0;
#pragma unroll
  for (int t = 0; t < kMarkedRows; ++t) {
    if (r + t >= count || word >= marks.words) continue;
    const int64_t self = queries[r + t];
    if (marks.same && word == self / kWarpSize) found[t] |= 1u << self % kWarpSize;
    if (marks.half) found[t] &= bits_from(self, word);
    marks.bits[(r + t) * marks.words + word] = found[t];
    seen += __popc(found[t]);
  }
  if (marked == nullptr) return;
  seen = warp_sum(seen);
  if (lane == 0) atomicAdd(marked, static_cast<unsigned long long>(seen));
}

// Compares the marked pairs of query `first + blockIdx.x`, which are listed first so that the warps share them wherever
// they are. found: how many are left; mirrored[j]: of how many (i, j) with j > i (null: not counted).
template <class T>
__global__ void __launch_bounds__(kFilterThreads, kFilterBlocks)
    compare_pairs(float* product, FilterRows<T> query, FilterRows<T> base, FilterUnits units, Marks marks,
                  int64_t first, double bound, int64_t* found, unsigned long long* mirrored) {
  __shared__ int32_t column[kListed];
  __shared__ int scratch[kFilterWarps];
  const int lane = threadIdx.x % kWarpSize;
  const int64_t i = first + blockIdx.x;
  unsigned* const bits = marks.bits + blockIdx.x * marks.words;
  float* const row = product + blockIdx.x * base.pitch;
  int count = 0;
  const auto compare = [&](int listed) {
    __syncthreads();
    for (int c = threadIdx.x / kWarpSize * kPartners; c < listed; c += kFilterWarps * kPartners) {
      const int together = Min{}(listed - c, kPartners);
      const double distance =
          exact_distances(query, base, units.metric, i, together, [&](int t) { return int64_t{column[c + t]}; });
      if (lane >= together) continue;
      const int j = column[c + lane];
      if (!(distance <= bound || (marks.same && j == i))) {  // a zero row is at cosine distance 1 from itself
        atomicAnd(bits + j / kWarpSize, ~(1u << j % kWarpSize));
        continue;
      }
      row[j] = returned_distance(distance, units.metric);
      ++count;
      if (mirrored != nullptr && j != i) atomicAdd(mirrored + j, 1ull);
    }
    __syncthreads();
  };
  int filled = 0;
  for (int start = static_cast<int>(marks.begin(i)); start < marks.words || filled > 0; start += kFilterThreads) {
    const int word = start + static_cast<int>(threadIdx.x);
    const bool over = start >= marks.words;  // then what is listed is compared
    unsigned left = word < marks.words ? bits[word] : 0;
    int total = 0, at = filled + block_exclusive_sum(__popc(left), scratch, total);
    for (filled += total;; filled -= kListed, at -= kListed) {
      for (; left != 0 && at < kListed; left &= left - 1, ++at) {
        column[at] = word * kWarpSize + __ffs(static_cast<int>(left)) - 1;
      }
      if (filled < kListed && !over) break;
      compare(Min{}(filled, kListed));
      if (filled <= kListed && over) break;
    }
    if (over) break;
  }
  count = block_sum(count, scratch);
  if (threadIdx.x == 0) found[blockIdx.x] = count;
}

// The pairs that are left, columns ascending; a warp a row, a word a lane.
__global__ void write_found(const float* product, Marks marks, int64_t pitch, int64_t first, int64_t count,
                            const int64_t* offset, int32_t* indices, float* values) {
  const int lane = threadIdx.x % kWarpSize;
  const int64_t r = static_cast<int64_t>(blockIdx.x) * kFilterWarps + threadIdx.x / kWarpSize;
  if (r >= count) return;
  int64_t at = offset[r];
  for (int64_t start = marks.begin(first + r); start < marks.words; start += kWarpSize) {
    const int64_t word = start + lane;
    unsigned mask = word < marks.words ? marks.bits[r * marks.words + word] : 0;
    const int mine = __popc(mask), before = warp_exclusive_sum(mine);
    for (int64_t to = at + before; mask != 0; mask &= mask - 1, ++to) {
      const int64_t j = word * kWarpSize + __ffs(static_cast<int>(mask)) - 1;
      indices[to] = static_cast<int32_t>(j);
      values[to] = product[r * pitch + j];
    }
    at += __shfl_sync(kWholeWarp, before + mine, kWarpSize - 1);
  }
}

}  // namespace
}  // namespace ise_fast
