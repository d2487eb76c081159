// The mass that rows of V' share, one row at a time, through the columns of V' (see jaccard.cpp).
#pragma once

#include <vector>

#include "csr.h"

namespace ise_fast {

// V' by columns, rows ascending. Zeros are left out: they add nothing to any s.
struct Columns {
  std::vector<int64_t> begin;
  std::vector<int32_t> row;
  std::vector<float> weight;

  explicit Columns(const Csr& v) : begin(v.rows + 1) {
    const int64_t nnz = v.indptr[v.rows];
    for (int64_t p = 0; p < nnz; ++p) begin[v.column(p) + 1] += v.values[p] > 0;
    for (int64_t f = 0; f < v.rows; ++f) begin[f + 1] += begin[f];
    row.resize(begin[v.rows]);
    weight.resize(begin[v.rows]);
    std::vector<int64_t> slot(begin.begin(), begin.end() - 1);
    for (int64_t i = 0; i < v.rows; ++i) {
      for (int64_t p = v.indptr[i]; p < v.indptr[i + 1]; ++p) {
        const float value = load_once(v.values + p);
        if (!(value > 0)) continue;
        const int32_t f = v.column(p);
        if (slot[f] == begin[f + 1]) throw_changed("values");
        row[slot[f]] = static_cast<int32_t>(i);
        weight[slot[f]++] = value;
      }
      poll_interrupt();
    }
    for (int64_t f = 0; f < v.rows; ++f) {
      if (slot[f] != begin[f + 1]) throw_changed("values");
    }
  }
};

// s(i, .) for one row at a time: a dense row of sums and the list of those that are not zero.
class SharedMass {
public:
  SharedMass(const Csr& v, const Columns& columns) : v_(v), columns_(columns), shared_(v.rows), touched_(v.rows + 1) {}

  // Fills sums for row i; then touched() lists the j with s > 0, in no particular order.
  void compute(int64_t i) {
    size_t count = 0;
    for (int64_t p = v_.indptr[i]; p < v_.indptr[i + 1]; ++p) {
      const float weight = load_once(v_.values + p);
      if (!(weight > 0)) continue;
      const int64_t f = v_.column(p);
      for (int64_t q = columns_.begin[f]; q < columns_.begin[f + 1]; ++q) {
        const int32_t j = columns_.row[q];
        // Written always, kept only when j is new: cheaper than a branch that is hard to predict.
        touched_[count] = j;
        count += shared_[j] == 0.0f;
        shared_[j] += std::min(weight, columns_.weight[q]);
      }
    }
    count_ = count;
  }

  // Calls body(j, s) for every touched j and clears the sums.
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
