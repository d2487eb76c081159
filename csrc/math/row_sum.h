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

// Weights of rows are added up in groups of 32, and these in chunks of 1,024, both as in dot.h: what a GPU's block of
// 1,024 threads does. A draw finds its chunk, the group in it and the row in that one after the other.
inline constexpr int64_t kStartGroup = kDotLanes, kStartChunk = kSumLanes;

// The first of `count` numbers with which their sum, `below` included, exceeds the goal; where rounding leaves none,
// the last one above 0; -1 if there is none. Afterwards `below` has the sum of those before it.
template <class NumberAt>
ISE_HOST_DEVICE int64_t place_of(double goal, double& below, int64_t count, NumberAt number_at) {
  int64_t place = -1;
  double before = below, sum = below;
  for (int64_t i = 0; i < count; ++i) {
    const double number = number_at(i);
    if (number > 0) {
      place = i;
      before = sum;
    }
    sum += number;
    if (sum > goal) break;
  }
  below = before;
  return place;
}

}  // namespace ise_fast
