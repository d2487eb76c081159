// Every pair of rows within a radius, exact: the certified filter rules out what is surely farther, the rest is
// compared in float64. Memory is proportional to the pairs that the filter leaves.
#include <algorithm>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "../check_neighbors.h"
#include "cascade.h"
#include "exact_distance.h"
#include "operator.h"
#include "tree.h"

namespace ise_fast {
namespace {

// For every query the base rows that may be within `bound`, in no particular order.
std::vector<std::vector<int32_t>> possible_pairs(const PairFilter& filter, double bound, int64_t block, int64_t width) {
  constexpr int64_t kWaiting = 64;
  const FilterRows &query = filter.query(), &base = filter.base();
  const int64_t n = query.rows.size(0), others = base.rows.size(0);
  const bool self = filter.self();
  const std::optional<Cascade> cascade = choose_cascade(filter, {0, bound}, width);
  std::vector<float> limit(n);
  for (int64_t i = 0; i < n; ++i) {
    limit[i] = cascade ? above(filter.exact_score(i, bound) + cascade->margin(i)) : filter.score_limit(i, bound);
  }
  std::vector<std::vector<int32_t>> columns(n);
  std::vector<int32_t> waiting(n);  // the last ones, which only the first prefix has seen
  const auto settle = [&](int64_t i) {
    std::vector<int32_t>& row = columns[i];
    float low[kWaiting];
    int32_t* to = row.data() + row.size() - waiting[i];
    const int32_t* from = to;
    cascade->second_scores(i, from, waiting[i], low);
    for (int32_t c = 0; c < waiting[i]; ++c) {
      if (low[c] <= limit[i]) *to++ = from[c];
    }
    row.resize(to - row.data());
    waiting[i] = 0;
  };
  const TileShape shape = tile_shape(n, others, self, block);
  SearchProgress watch(tile_count(n, others, self, shape));
  scan_pairs(
      cascade ? cascade->query() : row_matrix(query.rows), cascade ? cascade->base() : row_matrix(base.rows), self,
      shape, query.half.data(), base.half.data(), limit.data(),
      [&](int64_t i, int64_t j, float) {
        columns[i].push_back(static_cast<int32_t>(j));
        if (cascade && ++waiting[i] == kWaiting) settle(i);
      },
      &watch);
  if (cascade) {
    parallel_rows(n, [&](const auto& for_rows) { for_rows([&](int64_t i) { settle(i); }); });
  }
  return columns;
}

// Those of the possible pairs that are within `bound`; `same`: queries and base are the same rows, which are their own
// neighbours.
template <class T>
std::tuple<Tensor, Tensor, Tensor> graph_within(const PairFilter& filter, std::vector<std::vector<int32_t>> columns,
                                                double bound, Metric metric, bool same) {
  const FilterRows &rows = filter.query(), &base = filter.base();
  const int64_t n = rows.rows.size(0);

  const ExactDistance<T> exact{rows.original.const_data_ptr<T>(),
                               base.original.const_data_ptr<T>(),
                               rows.rows.size(1),
                               metric,
                               rows.squared.data(),
                               base.squared.data()};
  Tensor indptr = new_tensor(rows.rows, {n + 1}, ScalarType::Long);
  auto* offset = indptr.mutable_data_ptr<int64_t>();
  std::vector<std::vector<float>> values(n);
  parallel_for(0, n, 16, [&](int64_t begin, int64_t end) {
    std::vector<double> distances;
    for (int64_t i = begin; i < end; ++i) {
      std::vector<int32_t>& row = columns[i];
      std::sort(row.begin(), row.end());
      const auto self = std::lower_bound(row.begin(), row.end(), static_cast<int32_t>(i));
      if (same && (self == row.end() || *self != i))
        row.insert(self, static_cast<int32_t>(i));  // a zero row under the cosine
      distances.resize(row.size());
      exact(i, row.data(), static_cast<int64_t>(row.size()), distances.data());
      size_t kept = 0;
      for (size_t c = 0; c < row.size(); ++c) {
        if (!(distances[c] <= bound || (same && row[c] == i))) continue;
        row[kept] = row[c];
        distances[kept++] = distances[c];
      }
      row.resize(kept);
      row.shrink_to_fit();
      values[i].resize(kept);
      for (size_t c = 0; c < kept; ++c) values[i][c] = returned_distance(distances[c], metric);
      offset[i + 1] = static_cast<int64_t>(kept);
    }
  });
  offset[0] = 0;
  for (int64_t i = 0; i < n; ++i) offset[i + 1] += offset[i];

  Tensor indices = new_tensor(rows.rows, {offset[n]}, ScalarType::Int);
  Tensor distances = new_tensor(rows.rows, {offset[n]});
  auto* out_index = indices.mutable_data_ptr<int32_t>();
  auto* out_value = distances.mutable_data_ptr<float>();
  parallel_for(0, n, 256, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      std::copy(columns[i].begin(), columns[i].end(), out_index + offset[i]);
      std::copy(values[i].begin(), values[i].end(), out_value + offset[i]);
      std::vector<int32_t>().swap(columns[i]);
      std::vector<float>().swap(values[i]);
    }
  });
  return {indptr, indices, distances};
}

// (indptr [N + 1] i64, indices i32, values f32). `block`, `width`: as for knn, for tests.
std::tuple<Tensor, Tensor, Tensor> radius_graph(const Tensor& x, double eps, std::string metric_name, int64_t block,
                                                int64_t width) {
  check_block(block);
  check_width(width);
  const Metric metric = check_radius_graph(x, eps, metric_name);
  const bool single = x.scalar_type() == ScalarType::Float;
  const double bound = compared_bound(eps, metric, single);
  const PairFilter filter(x, nullptr, metric);
  if (tree_pays(filter, {0, bound}, metric, width)) return tree_graph(filter, bound, metric);
  const auto within = single ? graph_within<float> : graph_within<double>;
  return within(filter, possible_pairs(filter, bound, block, width), bound, metric, true);
}

// The same between the rows of y and those of x: [rows of y, rows of x]. `same`: x is y.
std::tuple<Tensor, Tensor, Tensor> radius_pairs(const Tensor& x, const Tensor& y, double eps, std::string metric_name,
                                                bool same, int64_t block, int64_t width) {
  check_block(block);
  check_width(width);
  const Metric metric = check_radius_graph(x, eps, metric_name);
  check_radius_pairs(x, y, same);
  const bool single = x.scalar_type() == ScalarType::Float;
  const double bound = compared_bound(eps, metric, single);
  const PairFilter filter(x, &y, metric);
  const auto within = single ? graph_within<float> : graph_within<double>;
  return within(filter, possible_pairs(filter, bound, block, width), bound, metric, same);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ise_fast, CPU, m) {
  m.impl("radius_graph", OPERATOR(radius_graph));
  m.impl("radius_pairs", OPERATOR(radius_pairs));
}

}  // namespace ise_fast
