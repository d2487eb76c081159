// The sum of many numbers whose bits every back end agrees on: lane l of 1,024 adds the numbers l, l + 1,024, ... in
// order; lanes are folded in groups of 32 as in dot.h, and so are the 32 sums of groups. A GPU's block of 1,024 threads
// does just that (block_sum of reduce.cuh).
#pragma once

#include <cstdint>

#include "dot.h"

namespace ise_fast {

inline constexpr int kSumLanes = kDotLanes * kDotLanes;

inline double sum_of_rows(const double* numbers, int64_t n) {
  double lane[kDotLanes][kDotLanes] = {};
  for (int64_t i = 0; i < n; ++i) lane[i % kSumLanes / kDotLanes][i % kDotLanes] += numbers[i];
  double group[kDotLanes];
  for (int g = 0; g < kDotLanes; ++g) group[g] = fold_dot_lanes(lane[g]);
  return fold_dot_lanes(group);
}

// Rows of a chunk of the sums behind drawn_row.
inline constexpr int64_t kStartChunk = 1024;

// The row that a draw in [0, 1) falls on when row i takes a share of weight[i]; sum[b] is the sum of chunk b. -1 if all
// weights are zero.
ISE_HOST_DEVICE int64_t drawn_row(const double* sum, int64_t chunks, const double* weight, int64_t n, double draw) {
  double total = 0;
  for (int64_t b = 0; b < chunks; ++b) total += sum[b];
  if (!(total > 0)) return -1;
  const double goal = draw * total;
  double below = 0;
  int64_t b = 0, last = -1;  // rounding may leave the goal beyond the last weight: then the last row with one
  for (; b < chunks - 1 && below + sum[b] <= goal; ++b) below += sum[b];
  for (int64_t i = b * kStartChunk; i < n; ++i) {
    if (weight[i] > 0) last = i;
    below += weight[i];
    if (below > goal) return i;
  }
  for (int64_t i = n - 1; last < 0; --i) {
    if (weight[i] > 0) last = i;
  }
  return last;
}

}  // namespace ise_fast
