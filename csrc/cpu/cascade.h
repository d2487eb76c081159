// The certified filter in two cheap steps before the exact distance: rows along their principal axes.
//
// With the prefixes and rests of prefix_rows.h
//   low = ||b||^2 / 2 - (p_q.p_b + t_q t_b)
// is never above the score of pair_filter.h, and low + 2 t_q t_b never below. With t as one more column, `low` is a
// matrix product of w + 1 columns instead of d. Pairs that the first, short prefix leaves are looked at with the
// second, longer one.
#pragma once

#include <optional>
#include <vector>

#include "pair_filter.h"
#include "prefix_rows.h"

namespace ise_fast {

// Columns of the two prefixes; second >= first.
struct Widths {
  int64_t first, second;
};

class Cascade {
public:
  Cascade(const PairFilter& filter, const Axes& axes, Widths widths);

  // For scan_pairs: [t, p_1, ..., p_first] of every row.
  Matrix<const float> query() const { return leading(filter_.self() ? base_ : query_); }
  Matrix<const float> base() const { return leading(base_); }

  // How far `low` of either prefix can be above the exact score, for query i and any base row: what is not in t.
  double margin(int64_t i) const { return filter_.margin_of(i, 0); }

  // `low` of query i and the base rows index[0 .. n) by the second prefix. The exact score is between
  // low - margin(i) and low + 2 half_gap(i, j) + margin(i).
  void second_scores(int64_t i, const int32_t* index, int64_t n, float* low) const;
  float half_gap(int64_t i, int64_t j) const {
    const Side& from = filter_.self() ? base_ : query_;
    return from.rest[i] * base_.rest[j];
  }

private:
  struct Side {
    Tensor rows;              // [n, 1 + second]: the first rest, then the prefix
    std::vector<float> rest;  // the second rest
  };

  Side rotated(const FilterRows& rows, const Axes& axes) const;
  Matrix<const float> leading(const Side& side) const;

  const PairFilter& filter_;
  Widths widths_;
  Side base_, query_;
};

// Rows of a list of candidates, for n base rows and k neighbours.
inline int64_t candidate_room(int64_t n, int64_t k) {
  return std::min(n, k + std::max<int64_t>(k, 98));
}

// What is searched: the k nearest, or (k = 0) everything within a compared distance of `bound`.
struct Search {
  int64_t k;
  double bound;
};

// The cascade if it is predicted to pay. `width`: -1 never, 0 chosen, else the columns of the first prefix (for tests).
std::optional<Cascade> choose_cascade(const PairFilter& filter, Search search, int64_t width);

}  // namespace ise_fast
