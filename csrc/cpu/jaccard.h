// The mass that rows of V' share, one row at a time, through the columns of V' (see jaccard.cpp).
#pragma once

#include <utility>
#include <vector>

#include "csr.h"

namespace ise_fast {

// V' by columns. Zeros are left out: they add nothing to any s. With an order of the rows (place -> row) rows go by
// their places, and columns lie in memory in that order.
struct Columns {
  struct Entry {
    int32_t row;
    float weight;
  };
  std::vector<int64_t> begin, end;  // of every column
  std::vector<Entry> entries;       // rows ascending in each column
  std::vector<int32_t> order;       // empty: none
  std::vector<int32_t> offset;      // with an order: where entry p of V' is, after the beginning of its column

  explicit Columns(const Csr& v, std::vector<int32_t> row_order = {})
      : begin(v.rows), end(v.rows), order(std::move(row_order)) {
    const int64_t nnz = v.indptr[v.rows];
    if (!order.empty()) offset.resize(nnz);
    for (int64_t p = 0; p < nnz; ++p) end[v.column(p)] += v.values[p] > 0;
    int64_t total = 0;
    for (int64_t place = 0; place < v.rows; ++place) {
      const int64_t f = row_at(place);
      begin[f] = total;
      end[f] = total += end[f];
    }
    entries.resize(total);
    std::vector<int64_t> slot(begin);
    for (int64_t place = 0; place < v.rows; ++place) {
      const int64_t i = row_at(place);
      for (int64_t p = v.indptr[i]; p < v.indptr[i + 1]; ++p) {
        const float value = load_once(v.values + p);
        if (!(value > 0)) continue;
        const int32_t f = v.column(p);
        if (slot[f] == end[f]) throw_changed("values");
        if (!order.empty()) offset[p] = static_cast<int32_t>(slot[f] - begin[f]);
        entries[slot[f]++] = {static_cast<int32_t>(place), value};
      }
      poll_interrupt();
    }
    if (slot != end) throw_changed("values");
  }

  int64_t row_at(int64_t place) const { return order.empty() ? place : order[place]; }
};

// s(i, .) for one row at a time: a dense row of sums and the list of those that are not zero. With an order of the
// columns' rows, i and j are places and only j >= i count: s is symmetric to the bit.
class SharedMass {
public:
  SharedMass(const Csr& v, const Columns& columns) : v_(v), columns_(columns), shared_(v.rows), touched_(v.rows + 1) {}

  // Fills the sums of row i, for `drain`.
  void compute(int64_t i) {
    const int64_t row = columns_.row_at(i);
    const int32_t* offset = columns_.offset.empty() ? nullptr : columns_.offset.data();
    size_t count = 0;
    for (int64_t p = v_.indptr[row]; p < v_.indptr[row + 1]; ++p) {
      const float weight = load_once(v_.values + p);
      if (!(weight > 0)) continue;
      const int64_t f = v_.column(p);
      for (int64_t q = columns_.begin[f] + (offset ? offset[p] : 0); q < columns_.end[f]; ++q) {
        const auto [j, other] = columns_.entries[q];
        // Written always, kept only when j is new: cheaper than a branch that is hard to predict.
        touched_[count] = j;
        count += shared_[j] == 0.0f;
        shared_[j] += std::min(weight, other);
      }
    }
    count_ = count;
  }

  // Calls body(j, s) for every j with s > 0, in no particular order, and clears the sums.
  template <class Body>
  void drain(const Body& body) {
    for (size_t t = 0; t < count_; ++t) {
      const int32_t j = touched_[t];
      body(j, shared_[j]);
      shared_[j] = 0.0f;
    }
  }

private:
  const Csr& v_;
  const Columns& columns_;
  std::vector<float> shared_;
  std::vector<int32_t> touched_;
  size_t count_ = 0;
};

}  // namespace ise_fast
