// Jaccard distance of k-reciprocal encodings (Zhong et al. 2017, equation 10), never forming what is not asked for.
//
//   s(i,j) = sum over f of min(V'(i,f), V'(j,f)), f ascending, in float32;   d = 1 - s / (2 - s), at least 0
//
// Row i adds up its s through the columns of V' it touches: for each f of row i, in order, every j of column f. A term
// that the dense loop adds and this one does not is a zero, so the sums have the same bits.
#include <torch/csrc/stable/library.h>

#include <vector>

#include "../math/k_reciprocal.h"
#include "csr.h"

namespace ise_fast {
namespace {

using Csr = CsrView<int32_t, float>;

// V' by columns, rows ascending. Zeros are left out: they add nothing to any s.
struct Columns {
  std::vector<int64_t> begin;
  std::vector<int32_t> row;
  std::vector<float> weight;

  explicit Columns(const Csr& v) : begin(v.rows + 1) {
    const int64_t nnz = v.indptr[v.rows];
    for (int64_t p = 0; p < nnz; ++p) begin[v.indices[p] + 1] += v.values[p] > 0;
    for (int64_t f = 0; f < v.rows; ++f) begin[f + 1] += begin[f];
    row.resize(begin[v.rows]);
    weight.resize(begin[v.rows]);
    std::vector<int64_t> slot(begin.begin(), begin.end() - 1);
    for (int64_t i = 0; i < v.rows; ++i) {
      for (int64_t p = v.indptr[i]; p < v.indptr[i + 1]; ++p) {
        if (!(v.values[p] > 0)) continue;
        const int64_t at = slot[v.indices[p]]++;
        row[at] = static_cast<int32_t>(i);
        weight[at] = v.values[p];
      }
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
      const float weight = v_.values[p];
      if (!(weight > 0)) continue;
      const int64_t f = v_.indices[p];
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

CsrTensors jaccard_graph(const Tensor& indptr, const Tensor& indices, const Tensor& values, double eps, int64_t begin,
                         int64_t end) {
  check_jaccard_graph(indptr, indices, values, eps, begin, end);
  const Tensor offsets = torch::stable::contiguous(indptr), cols = torch::stable::contiguous(indices),
               weights = torch::stable::contiguous(values);
  const Csr v = checked_csr<int32_t, float>(offsets, cols, weights);
  const Columns columns(v);
  const auto bound = static_cast<float>(eps);
  const float least = least_shared(bound);

  return assemble_rows(offsets, weights, begin, end, [&] {
    return [&, mass = SharedMass(v, columns), near = std::vector<std::pair<int32_t, float>>()](int64_t i,
                                                                                               RowSink& sink) mutable {
      mass.compute(i);
      near.clear();
      float self = 0.0f;
      mass.drain([&](int32_t j, float s) {
        if (j == i) self = s;
        if (s < least || j == i) return;
        const float d = jaccard_from_shared(s);
        if (d <= bound) near.emplace_back(j, d);
      });
      // The diagonal is stored with its value, even above eps (an empty row has d(i, i) = 1): dbscan then counts the
      // same neighbours as on the dense matrix.
      near.emplace_back(static_cast<int32_t>(i), jaccard_from_shared(self));
      std::sort(near.begin(), near.end());
      for (const auto& [j, d] : near) {
        sink.indices.push_back(j);
        sink.values.push_back(d);
      }
    };
  });
}

Tensor jaccard_distance(const Tensor& indptr, const Tensor& indices, const Tensor& values) {
  check_encoding(indptr, indices, values);
  const Tensor offsets = torch::stable::contiguous(indptr), cols = torch::stable::contiguous(indices),
               weights = torch::stable::contiguous(values);
  const Csr v = checked_csr<int32_t, float>(offsets, cols, weights);
  const Columns columns(v);
  Tensor distance = torch::stable::new_empty(weights, {v.rows, v.rows});
  auto* out = distance.mutable_data_ptr<float>();
  parallel_rows(v.rows, [&](const auto& for_rows) {
    SharedMass mass(v, columns);
    for_rows([&](int64_t i) {
      float* row = out + i * v.rows;
      std::fill(row, row + v.rows, 1.0f);
      mass.compute(i);
      mass.drain([&](int32_t j, float s) { row[j] = jaccard_from_shared(s); });
    });
  });
  return distance;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ise_fast, CPU, m) {
  m.impl("jaccard_distance", TORCH_BOX(&jaccard_distance));
  m.impl("jaccard_graph", TORCH_BOX(&jaccard_graph));
}

}  // namespace ise_fast
