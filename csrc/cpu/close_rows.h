// Rows that lie so close together that the filter cannot tell their distances apart: its error grows with the lengths
// of the rows. Their differences from one of them, the pivot, are short, and so is the error of a filter of these.
//
// If query q has k rows within D, all of its answer is within |q - p| + D of the pivot p. Rounding the differences to
// float32 moves a score by u (|q - p| + |b - p|)^2 at most, which the filter of differences is told of.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "pair_filter.h"

namespace ise_fast {

// A query whose answer is not certain, and a compared distance that at least k rows do not exceed.
using Uncertain = std::pair<int64_t, double>;

// What is searched, as numbers of the original rows, ascending; empty stands for all of them.
struct Part {
  const PairFilter& filter;
  std::vector<int32_t> query_rows, base_rows;

  int64_t query(int64_t i) const { return query_rows.empty() ? i : query_rows[i]; }
  int32_t base(int32_t j) const { return base_rows.empty() ? j : base_rows[j]; }
};

struct CloseRows {
  std::vector<Uncertain> uncertain;            // of the part
  std::vector<int32_t> query, base;            // original rows, as in Part; none: too few to be worth it
  Tensor query_differences, base_differences;  // [.., d] float32, from the pivot
};

class CloseRowFinder {
public:
  // `queries`, `base`: [.., d], the original rows.
  CloseRowFinder(const float* queries, const float* base, int64_t d) : queries_(queries), base_(base), d_(d) {}

  // Takes one of the queries and all that are close to it out of `uncertain`. Nothing, if no query is promising; this
  // is seen without a look at the rows.
  CloseRows take(const Part& part, std::vector<Uncertain>& uncertain) const;

  // The filter of the differences.
  PairFilter filter(const CloseRows& close) const;

private:
  Tensor differences(const float* rows, const std::vector<int32_t>& index, const float* pivot,
                     const Tensor& like) const;

  const float *queries_, *base_;
  int64_t d_;
};

}  // namespace ise_fast
