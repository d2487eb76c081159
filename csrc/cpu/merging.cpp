// One step of bottom-up clustering: the nearest pairs of rows join their clusters (BUC: Lin et al., AAAI 2019). A heap
// hands out pairs by (dissimilarity, row, row) until enough have joined, so most pairs are never sorted.
#include <algorithm>
#include <numeric>
#include <tuple>
#include <vector>

#include "../check_methods.h"
#include "csr.h"
#include "operator.h"

namespace ise_fast {
namespace {

struct Pair {
  double d;
  int32_t i, j;
  bool operator>(const Pair& other) const { return std::tie(d, i, j) > std::tie(other.d, other.i, other.j); }
};

int64_t find_root(std::vector<int64_t>& parent, int64_t i) {
  while (parent[i] != i) i = parent[i] = parent[parent[i]];
  return i;
}

template <class Index, class Value>
std::tuple<Tensor, Tensor, Tensor> merge(const CsrView<Index, Value>& graph, const Tensor& labels, double penalty,
                                         int64_t merges) {
  const int64_t n = graph.rows;
  const Tensor y = row_major(labels);
  const std::vector<int64_t> label = copy_of(y.const_data_ptr<int64_t>(), n);
  // Labels by rank: any numbers >= 0 may come.
  for (int64_t i = 0; i < n; ++i) check(label[i] >= 0, "labels: expected at least 0, got ", label[i], " at row ", i);
  std::vector<int64_t> names(label);
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  std::vector<int64_t> own(n), size(names.size(), 0);
  for (int64_t i = 0; i < n; ++i) {
    own[i] = std::lower_bound(names.begin(), names.end(), label[i]) - names.begin();
    ++size[own[i]];
  }

  std::vector<Pair> pairs;
  for (int64_t i = 0; merges > 0 && i < n; ++i) {
    poll_interrupt();
    for (int64_t p = graph.indptr[i]; p < graph.indptr[i + 1]; ++p) {
      const int64_t j = graph.column(p);
      if (j <= i || own[j] == own[i]) continue;
      pairs.push_back(
          {static_cast<double>(graph.values[p]) + penalty * static_cast<double>(size[own[i]] + size[own[j]]),
           static_cast<int32_t>(i), static_cast<int32_t>(j)});
    }
  }
  std::make_heap(pairs.begin(), pairs.end(), std::greater<>());
  std::vector<int64_t> parent(names.size());
  std::iota(parent.begin(), parent.end(), 0);
  std::vector<Pair> joined;
  while (static_cast<int64_t>(joined.size()) < merges && !pairs.empty()) {
    poll_interrupt();
    std::pop_heap(pairs.begin(), pairs.end(), std::greater<>());
    const Pair nearest = pairs.back();
    pairs.pop_back();
    const int64_t a = find_root(parent, own[nearest.i]), b = find_root(parent, own[nearest.j]);
    if (a == b) continue;
    parent[std::max(a, b)] = std::min(a, b);
    joined.push_back(nearest);
  }

  std::vector<int64_t> number(names.size());
  int64_t clusters = 0;
  for (size_t c = 0; c < names.size(); ++c) number[c] = parent[c] == static_cast<int64_t>(c) ? clusters++ : -1;
  Tensor out = new_tensor(y, {n});
  for (int64_t i = 0; i < n; ++i) out.mutable_data_ptr<int64_t>()[i] = number[find_root(parent, own[i])];
  const auto count = static_cast<int64_t>(joined.size());
  Tensor rows = new_tensor(y, {count, 2});
  Tensor dissimilarity = new_tensor(y, {count}, ScalarType::Double);
  for (int64_t m = 0; m < count; ++m) {
    rows.mutable_data_ptr<int64_t>()[2 * m] = joined[m].i;
    rows.mutable_data_ptr<int64_t>()[2 * m + 1] = joined[m].j;
    dissimilarity.mutable_data_ptr<double>()[m] = joined[m].d;
  }
  return {out, rows, dissimilarity};
}

std::tuple<Tensor, Tensor, Tensor> merge_nearest(const Tensor& indptr, const Tensor& indices, const Tensor& values,
                                                 const Tensor& labels, double penalty, int64_t merges) {
  check_merge_nearest(indptr, indices, values, labels, penalty, merges);
  const Tensor p = row_major(indptr), i = row_major(indices), v = row_major(values);
  const auto run = [&]<class Index, class Value>(Index, Value) {
    return merge(checked_csr<Index, Value>(p, i, v), labels, penalty, merges);
  };
  const bool narrow = i.scalar_type() == ScalarType::Int, single = v.scalar_type() == ScalarType::Float;
  if (narrow) return single ? run(int32_t{}, float{}) : run(int32_t{}, double{});
  return single ? run(int64_t{}, float{}) : run(int64_t{}, double{});
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ise_fast, CPU, m) {
  m.impl("merge_nearest", OPERATOR(merge_nearest));
}

}  // namespace ise_fast
