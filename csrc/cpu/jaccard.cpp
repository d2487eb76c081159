// Jaccard distance of k-reciprocal encodings (Zhong et al. 2017, equation 10), never forming what is not asked for.
//
//   s(i,j) = sum over f of min(V'(i,f), V'(j,f)), f ascending, in float32;   d = 1 - s / (2 - s), at least 0
//
// Row i adds up its s through the columns of V' it touches: for each f of row i, in order, every j of column f. A term
// that the dense loop adds and this one does not is a zero, so the sums have the same bits.
//
// The graph of all rows visits each unordered pair once and copies it to the other side, and takes rows in an order
// that keeps neighbours together: what they touch is then in the cache.
#include "jaccard.h"

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include "../math/k_reciprocal.h"
#include "nearby.h"
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

std::vector<int32_t> nearby_rows(const Csr& v) {
  return nearby_order(v.rows, [&](int64_t i, const auto& visit) {
    for (int64_t p = v.indptr[i]; p < v.indptr[i + 1]; ++p) visit(v.column(p));
  });
}

// The whole of a symmetric matrix, from a half of it whose rows and columns are places in `order`; the columns of a row
// ascend as rows. Every pair is in the half once, the diagonal too.
CsrTensors both_halves(const CsrTensors& half, const std::vector<int32_t>& order) {
  const Csr from = view(half);
  const int64_t n = from.rows;
  std::vector<int32_t> place(n);
  for (int64_t r = 0; r < n; ++r) place[order[r]] = static_cast<int32_t>(r);
  // A row is first what other rows have of it, then its own part.
  std::vector<int64_t> own(n);
  Tensor indptr = new_tensor(std::get<0>(half), {n + 1});
  auto* offset = indptr.mutable_data_ptr<int64_t>();
  std::fill(offset, offset + n + 1, 0);
  for (int64_t r = 0; r < n; ++r) {
    for (int64_t p = from.indptr[r]; p < from.indptr[r + 1]; ++p)
      offset[order[from.indices[p]] + 1] += from.indices[p] != r;
  }
  for (int64_t i = 0; i < n; ++i) {
    own[i] = offset[i] + offset[i + 1];
    offset[i + 1] = own[i] + from.indptr[place[i] + 1] - from.indptr[place[i]];
  }

  Tensor indices = new_tensor(std::get<1>(half), {offset[n]});
  Tensor values = new_tensor(std::get<2>(half), {offset[n]});
  auto* index = indices.mutable_data_ptr<int32_t>();
  auto* value = values.mutable_data_ptr<float>();
  std::vector<int64_t> slot(offset, offset + n);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t p = from.indptr[place[i]]; p < from.indptr[place[i] + 1]; ++p) {
      const int64_t j = order[from.indices[p]];
      if (j == i) continue;
      index[slot[j]] = static_cast<int32_t>(i);
      value[slot[j]++] = from.values[p];
    }
    poll_interrupt();
  }
  parallel_rows(n, [&](const auto& for_rows) {
    std::vector<std::pair<int32_t, float>> row;
    for_rows([&](int64_t i) {
      row.clear();
      for (int64_t p = offset[i]; p < own[i]; ++p) row.emplace_back(index[p], value[p]);
      const auto middle = static_cast<int64_t>(row.size());
      for (int64_t p = from.indptr[place[i]]; p < from.indptr[place[i] + 1]; ++p) {
        row.emplace_back(order[from.indices[p]], from.values[p]);
      }
      std::inplace_merge(row.begin(), row.begin() + middle, row.end());
      for (size_t e = 0; e < row.size(); ++e) {
        index[offset[i] + e] = row[e].first;
        value[offset[i] + e] = row[e].second;
      }
    });
  });
  return {indptr, indices, values};
}

CsrTensors jaccard_graph(const Tensor& indptr, const Tensor& indices, const Tensor& values, double eps, int64_t begin,
                         int64_t end, int64_t max_pairs) {
  check_jaccard_graph(indptr, indices, values, eps, begin, end, max_pairs);
  const Tensor offsets = row_major(indptr), cols = row_major(indices), weights = row_major(values);
  const auto v = checked_encoding(offsets, cols, weights);
  const bool whole = begin == 0 && end == v.rows && end > 0;
  const Columns columns(v, whole ? nearby_rows(v) : std::vector<int32_t>());
  const auto bound = static_cast<float>(eps);
  const float least = least_shared(bound);
  PairLimit limit{max_pairs, eps};

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
      if (whole) limit.add(static_cast<int64_t>(near.size()));  // the other half
      // The diagonal is stored with its value, even above eps (an empty row has d(i, i) = 1): dbscan then counts the
      // same neighbours as on the dense matrix.
      near.emplace_back(static_cast<int32_t>(i), jaccard_from_shared(self));
      std::sort(near.begin(), near.end(),
                [&](const auto& a, const auto& b) { return columns.row_at(a.first) < columns.row_at(b.first); });
      for (const auto& [j, d] : near) {
        sink.indices.push_back(j);
        sink.values.push_back(d);
      }
    };
  };
  CsrTensors found = assemble_rows(offsets, weights, begin, end, make_row, &limit);
  return whole ? both_halves(found, columns.order) : found;
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
