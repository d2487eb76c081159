// Jaccard distance of k-reciprocal encodings (Zhong et al. 2017, equation 10), never forming what is not asked for.
//
//   s(i,j) = sum over f of min(V'(i,f), V'(j,f)), f ascending, in float32;   d = 1 - s / (2 - s), at least 0
//
// Row i adds up its s through the columns of V' it touches: for each f of row i, in order, every j of column f. A term
// that the dense loop adds and this one does not is a zero, so the sums have the same bits.
#include "jaccard.h"

#include <numeric>
#include <vector>

#include "../math/k_reciprocal.h"
#include "operator.h"

namespace ise_fast {
namespace {

CheckedCsr<int32_t, float> checked_encoding(const Tensor& indptr, const Tensor& indices, const Tensor& values) {
  auto v = checked_csr<int32_t, float>(indptr, indices, values);
  parallel_rows(v.rows, [&](const auto& for_rows) {
    for_rows([&](int64_t i) {
      check_weight_sum(std::accumulate(v.values + v.indptr[i], v.values + v.indptr[i + 1], 0.0), i);
    });
  });
  return v;
}

CsrTensors jaccard_graph(const Tensor& indptr, const Tensor& indices, const Tensor& values, double eps, int64_t begin,
                         int64_t end, int64_t max_pairs) {
  check_jaccard_graph(indptr, indices, values, eps, begin, end, max_pairs);
  const Tensor offsets = row_major(indptr), cols = row_major(indices), weights = row_major(values);
  const auto v = checked_encoding(offsets, cols, weights);
  const Columns columns(v);
  const auto bound = static_cast<float>(eps);
  const float least = least_shared(bound);

  const auto make_row = [&] {
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
  };
  PairLimit limit{max_pairs, eps};
  return assemble_rows(offsets, weights, begin, end, make_row, &limit);
}

Tensor jaccard_distance(const Tensor& indptr, const Tensor& indices, const Tensor& values) {
  check_encoding(indptr, indices, values);
  const Tensor offsets = row_major(indptr), cols = row_major(indices), weights = row_major(values);
  const auto v = checked_encoding(offsets, cols, weights);
  const Columns columns(v);
  Tensor distance = new_tensor(weights, {v.rows, v.rows});
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
  m.impl("jaccard_distance", OPERATOR(jaccard_distance));
  m.impl("jaccard_graph", OPERATOR(jaccard_graph));
}

}  // namespace ise_fast
