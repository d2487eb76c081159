// The k nearest rows, ordered by (distance, index), exact: a certified filter over blocks of a float32 matrix product,
// then float64 distances of the few candidates that it leaves (docs/architecture.md).
#include <cmath>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "../check_neighbors.h"
#include "candidates.h"
#include "changed.h"
#include "close_rows.h"
#include "exact_distance.h"
#include "nearby.h"
#include "operator.h"
#include "parallel.h"
#include "tree.h"

namespace ise_fast {
namespace {

using Neighbour = std::pair<double, int32_t>;  // compares by (distance, index)

// How rows are compared exactly, and where answers go.
struct ExactSearch {
  const ExactDistance<float>& exact;
  CloseRowFinder close;
  float* distance;
  int64_t* index;
  int64_t k, block;

  // out[r] = the compared distance of query i and row index[r] of the part.
  void compare(const Part& part, int64_t i, const int32_t* index, int64_t n, double* out) const {
    if (part.base_rows.empty()) return exact(part.query(i), index, n, out);
    thread_local std::vector<int32_t> rows;
    rows.resize(n);
    std::transform(index, index + n, rows.begin(), [&](int32_t j) { return part.base(j); });
    exact(part.query(i), rows.data(), n, out);
  }

  void write(const Part& part, int64_t i, const std::vector<Neighbour>& sorted) const {
    if (static_cast<int64_t>(sorted.size()) < k) throw_changed("x");  // NaN is no neighbour, and there was none before
    for (int64_t r = part.query(i) * k, s = 0; s < k; ++s) {
      distance[r + s] = returned_distance(sorted[s].first, exact.metric);
      index[r + s] = part.base(sorted[s].second);
    }
  }
};

// Compares the candidates of one row exactly.
class Settler {
public:
  Settler(Candidates& candidates, const Part& part, bool cascade, const ExactSearch& search)
      : candidates_(candidates), part_(part), cascade_(cascade), search_(search) {}

  // Writes the answer of row i. If it is not certain, returns a distance that at least k rows do not exceed instead.
  std::optional<double> settle(int64_t i) {
    const bool overflowed = candidates_.overflowed(i);
    if (!overflowed && candidates_.enough(i)) candidates_.finish(i);
    if (!candidates_.enough(i)) throw_changed("x");
    if (overflowed || cascade_) {
      candidates_.nearest_first(i);
      candidates_.take(i, indices_);
      indices_.resize(search_.k);
      compare(i, 0);
      const double furthest = *std::max_element(distances_.begin(), distances_.end());
      if (std::isnan(furthest)) throw_changed("x");
      if (overflowed) return furthest;
      candidates_.drop_beyond(i, furthest);
    }
    candidates_.take(i, indices_);
    compare(i, cascade_ ? search_.k : 0);
    found_.resize(indices_.size());
    for (size_t c = 0; c < found_.size(); ++c) found_[c] = {distances_[c], indices_[c]};
    std::partial_sort(found_.begin(), found_.begin() + search_.k, found_.end());
    const double last = found_[search_.k - 1].first;
    if (cascade_ && !candidates_.certified(i, last)) return last;
    search_.write(part_, i, found_);
    return std::nullopt;
  }

private:
  // Fills the distances from position `first` on.
  void compare(int64_t i, int64_t first) {
    const auto total = static_cast<int64_t>(indices_.size());
    distances_.resize(total);
    search_.compare(part_, i, indices_.data() + first, total - first, distances_.data() + first);
  }

  Candidates& candidates_;
  const Part& part_;
  bool cascade_;
  const ExactSearch& search_;
  std::vector<int32_t> indices_;
  std::vector<double> distances_;
  std::vector<Neighbour> found_;
};

// Settles all rows. Returns those that are not certain, with a distance that at least k rows do not exceed.
std::vector<Uncertain> settle(Candidates& candidates, const Part& part, bool cascade, const ExactSearch& search,
                              SearchProgress* watch = nullptr) {
  const int64_t queries = part.filter.query().rows.size(0);
  std::vector<double> bound(queries, -1);
  const std::vector<int32_t> order = nearby_order(queries, [&](int64_t i, const auto& visit) {
    if (part.filter.self()) candidates.each(i, visit);
  });
  parallel_rows(queries, [&](const auto& for_rows) {
    Settler settler(candidates, part, cascade, search);
    for_rows([&](int64_t position) {
      const std::optional<double> uncertain = settler.settle(order[position]);
      if (uncertain) bound[order[position]] = *uncertain;
      if (watch && position % kRowsPerBlock == 0) watch->step();
    });
  });
  std::vector<Uncertain> failed;
  for (int64_t i = 0; i < queries; ++i) {
    if (bound[i] >= 0) failed.emplace_back(i, bound[i]);
  }
  return failed;
}

// The failed rows again, each against all base rows, comparing exactly whatever the filter cannot rule out.
void redo(const Part& part, const std::vector<Uncertain>& failed, const ExactSearch& search) {
  constexpr int64_t kGathered = 1024;
  const PairFilter& filter = part.filter;
  const FilterRows& query = filter.query();
  const int64_t d = search.exact.d, block = search.block, total = static_cast<int64_t>(failed.size());
  const Tensor& rows = query.rows;
  for (int64_t start = 0; start < total; start += kGathered) {
    const int64_t n = std::min(kGathered, total - start);
    Tensor gathered = new_tensor(rows, {n, d});
    std::vector<float> limit(n);
    std::vector<std::vector<Neighbour>> nearest(n);  // heaps, the worst on top
    for (int64_t r = 0; r < n; ++r) {
      const auto [i, distance] = failed[start + r];
      std::copy_n(rows.const_data_ptr<float>() + i * d, d, gathered.mutable_data_ptr<float>() + r * d);
      limit[r] = filter.score_limit(i, distance);
    }
    // Low tiles: here most of the work is done under the lock of a block of rows, so there must be several of them.
    const TileShape shape{block > 0 ? block : 128, block > 0 ? block : 512};
    const auto compare = [&](int64_t r, int64_t j, float score) {
      if (!(score <= limit[r])) return;
      const int64_t i = failed[start + r].first;
      Neighbour neighbour{0, static_cast<int32_t>(j)};
      auto& heap = nearest[r];
      const bool full = static_cast<int64_t>(heap.size()) == search.k;
      if (full && heap.front() < neighbour) return;  // k zeros of smaller indices: nothing beats them
      search.compare(part, i, &neighbour.second, 1, &neighbour.first);
      if (full) {
        if (!(neighbour < heap.front())) return;
        std::pop_heap(heap.begin(), heap.end());
        heap.pop_back();
      }
      heap.push_back(neighbour);
      std::push_heap(heap.begin(), heap.end());
      if (static_cast<int64_t>(heap.size()) < search.k) return;
      limit[r] = std::min(limit[r], filter.score_limit(i, heap.front().first));
    };
    scan_pairs(row_matrix(gathered), row_matrix(filter.base().rows), false, shape, nullptr, filter.base().half.data(),
               limit.data(), compare);
    for (int64_t r = 0; r < n; ++r) {
      std::sort_heap(nearest[r].begin(), nearest[r].end());
      search.write(part, failed[start + r].first, nearest[r]);
    }
  }
}

// What the filter could not settle: rows that are close to each other by a filter of their differences (and if need be
// of the differences' differences), the rest one by one. Returns how many of the latter there were.
int64_t settle_rest(const Part& part, std::vector<Uncertain> failed, const ExactSearch& search, int depth = 3) {
  constexpr int kTries = 16;  // places where nothing was to be gained
  std::vector<Uncertain> rest;
  int64_t redone = 0;
  for (int tries = 0; depth > 0 && tries < kTries && search.exact.metric != Metric::kCosine;) {
    const CloseRows close = search.close.take(part, failed);
    if (close.uncertain.empty()) break;
    if (close.base.empty()) {
      rest.insert(rest.end(), close.uncertain.begin(), close.uncertain.end());
      ++tries;
      continue;
    }
    const PairFilter filter = search.close.filter(close);
    const Part inner{filter, close.query, close.base};
    const auto queries = static_cast<int64_t>(close.query.size()), n = static_cast<int64_t>(close.base.size());
    if (n < search.k) throw_changed("x");
    Candidates candidates(filter, nullptr, queries, n, search.k);
    scan_pairs(row_matrix(filter.query().rows), row_matrix(filter.base().rows), filter.self(),
               tile_shape(queries, n, filter.self(), search.block), filter.query().half.data(),
               filter.base().half.data(), candidates.limits(),
               [&](int64_t i, int64_t j, float score) { candidates.add(i, j, score); });
    redone += settle_rest(inner, settle(candidates, inner, false, search), search, depth - 1);
  }
  failed.insert(failed.end(), rest.begin(), rest.end());
  redo(part, failed, search);
  return redone + static_cast<int64_t>(failed.size());
}

// (distances [M, k] f32, indices [M, k] i64, number of rows redone). `block`: rows of a tile, 0 chooses; `width`:
// columns of the first prefix (cascade.h), 0 chooses, -1 for none, -2 for the tree. Both are for tests. Which rows are
// redone depends on the order in which the threads find candidates, the answer does not.
std::tuple<Tensor, Tensor, Tensor> knn(const Tensor& x, int64_t k, const std::optional<Tensor>& y,
                                       std::string metric_name, int64_t block, int64_t width) {
  check_block(block);
  check_width(width);
  const Metric metric = check_knn(x, k, y ? &*y : nullptr, metric_name);
  const PairFilter filter(x, y ? &*y : nullptr, metric);
  const FilterRows &query = filter.query(), &base = filter.base();
  const int64_t queries = query.rows.size(0), n = base.rows.size(0), d = x.size(1);

  Tensor distances = new_tensor(query.rows, {queries, k});
  Tensor indices = new_tensor(query.rows, {queries, k}, ScalarType::Long);
  Tensor redone = new_tensor(query.rows, {}, ScalarType::Long);
  const ExactDistance<float> exact{query.original.const_data_ptr<float>(),
                                   base.original.const_data_ptr<float>(),
                                   d,
                                   metric,
                                   query.squared.data(),
                                   base.squared.data()};
  const Part all{filter, {}, {}};
  const ExactSearch search{exact,
                           CloseRowFinder(exact.query, exact.base, d),
                           distances.mutable_data_ptr<float>(),
                           indices.mutable_data_ptr<int64_t>(),
                           k,
                           block};

  if (tree_pays(filter, {k, 0}, metric, width)) {
    tree_nearest(filter, k, metric, search.distance, search.index);
    *redone.mutable_data_ptr<int64_t>() = 0;
    return {distances, indices, redone};
  }
  const std::optional<Cascade> cascade = choose_cascade(filter, {k, 0}, width);
  Candidates candidates(filter, cascade ? &*cascade : nullptr, queries, n, k);
  const TileShape shape = tile_shape(queries, n, filter.self(), block);
  const int64_t row_blocks = (queries + kRowsPerBlock - 1) / kRowsPerBlock;
  SearchProgress watch(tile_count(queries, n, filter.self(), shape) + row_blocks);
  scan_pairs(
      cascade ? cascade->query() : row_matrix(query.rows), cascade ? cascade->base() : row_matrix(base.rows),
      filter.self(), shape, query.half.data(), base.half.data(), candidates.limits(),
      [&](int64_t i, int64_t j, float score) { candidates.add(i, j, score); }, &watch);
  const std::vector<Uncertain> failed = settle(candidates, all, cascade.has_value(), search, &watch);
  *redone.mutable_data_ptr<int64_t>() = settle_rest(all, failed, search);
  return {distances, indices, redone};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ise_fast, CPU, m) {
  m.impl("knn", OPERATOR(knn));
}

}  // namespace ise_fast
