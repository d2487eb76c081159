// The k nearest rows, ordered by (distance, index), exact: a certified filter over blocks of a float32 matrix product,
// then float64 distances of the few candidates that it leaves (ALGORITHMS: docs/architecture.md).
#include <atomic>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "../check_neighbors.h"
#include "../math/ordered_key.h"
#include "exact_distance.h"
#include "nearby.h"
#include "operator.h"
#include "pair_filter.h"
#include "parallel.h"

namespace ise_fast {
namespace {

using Neighbour = std::pair<double, int32_t>;  // compares by (distance, index)

// For every query the candidates that may be among its k nearest: all with score <= limit, where the limit follows the
// k-th smallest score seen, plus twice the margin.
class Candidates {
public:
  Candidates(const PairFilter& filter, int64_t queries, int64_t base, int64_t k)
      : k_(k),
        capacity_(std::min(base, k + std::max<int64_t>(k, 98))),
        complete_(capacity_ == base),
        keys_(new uint64_t[queries * capacity_]),
        count_(queries),
        limit_(queries, std::numeric_limits<float>::infinity()),
        margin_(queries) {
    for (int64_t i = 0; i < queries; ++i) margin_[i] = filter.margin(i);
  }

  const float* limits() const { return limit_.data(); }
  bool overflowed(int64_t i) const { return limit_[i] == -std::numeric_limits<float>::infinity(); }

  void add(int64_t i, int64_t j, float score) {
    if (!(score <= limit_[i])) return;
    row(i)[count_[i]++] = ascending_key(score, static_cast<uint32_t>(j));
    if (count_[i] == capacity_ && !complete_) {
      tighten(i);
      // Too many stay within the margin (ties, duplicates): give the row up before it costs more than the exact redo.
      if (count_[i] > capacity_ - capacity_ / 8) limit_[i] = -std::numeric_limits<float>::infinity();
    }
  }

  // Drops what cannot be among the k nearest any more.
  void tighten(int64_t i) {
    uint64_t* keys = row(i);
    std::nth_element(keys, keys + k_ - 1, keys + count_[i]);
    limit_[i] = above(ascending_value(keys[k_ - 1]) + 2 * margin_[i]);
    const uint64_t* end =
        std::partition(keys + k_, keys + count_[i], [&](uint64_t key) { return ascending_value(key) <= limit_[i]; });
    count_[i] = static_cast<int32_t>(end - keys);
  }

  // Calls visit(j) for every candidate of query i.
  template <class Visit>
  void each(int64_t i, const Visit& visit) const {
    const uint64_t* keys = keys_.get() + i * capacity_;
    for (int32_t c = 0; c < count_[i]; ++c) visit(key_index(keys[c]));
  }

  void take(int64_t i, std::vector<int32_t>& indices) const {
    indices.resize(count_[i]);
    std::transform(keys_.get() + i * capacity_, keys_.get() + i * capacity_ + count_[i], indices.begin(), key_index);
  }

private:
  uint64_t* row(int64_t i) { return keys_.get() + i * capacity_; }

  int64_t k_, capacity_;
  bool complete_;  // a list has room for every base row
  std::unique_ptr<uint64_t[]> keys_;
  std::vector<int32_t> count_;
  std::vector<float> limit_;
  std::vector<double> margin_;
};

struct Output {
  float* distance;
  int64_t* index;
  int64_t k;
  Metric metric;

  void write(int64_t i, const std::vector<Neighbour>& sorted) const {
    for (int64_t r = 0; r < k; ++r) {
      distance[i * k + r] = returned_distance(sorted[r].first, metric);
      index[i * k + r] = sorted[r].second;
    }
  }
};

// Sorts the exact distances of all candidates. Returns the rows that had too many, with a distance that at least k
// rows do not exceed.
std::vector<std::pair<int64_t, double>> settle(Candidates& candidates, const ExactDistance<float>& exact,
                                               int64_t queries, bool self, const Output& output) {
  std::vector<double> bound(queries, -1);
  const std::vector<int32_t> order = nearby_order(queries, [&](int64_t i, const auto& visit) {
    if (self) candidates.each(i, visit);
  });
  parallel_rows(queries, [&](const auto& for_rows) {
    std::vector<int32_t> indices;
    std::vector<double> distances;
    std::vector<Neighbour> found;
    for_rows([&](int64_t position) {
      const int64_t i = order[position];
      const bool overflowed = candidates.overflowed(i);
      if (!overflowed) candidates.tighten(i);
      candidates.take(i, indices);
      if (overflowed) indices.resize(output.k);
      distances.resize(indices.size());
      exact(i, indices.data(), static_cast<int64_t>(indices.size()), distances.data());
      if (overflowed) {
        bound[i] = *std::max_element(distances.begin(), distances.end());
        return;
      }
      found.resize(indices.size());
      for (size_t c = 0; c < found.size(); ++c) found[c] = {distances[c], indices[c]};
      std::partial_sort(found.begin(), found.begin() + output.k, found.end());
      output.write(i, found);
    });
  });
  std::vector<std::pair<int64_t, double>> failed;
  for (int64_t i = 0; i < queries; ++i) {
    if (bound[i] >= 0) failed.emplace_back(i, bound[i]);
  }
  return failed;
}

// The failed rows again, each against all base rows, comparing exactly whatever the filter cannot rule out.
void redo(const PairFilter& filter, const ExactDistance<float>& exact,
          const std::vector<std::pair<int64_t, double>>& failed, int64_t block, const Output& output) {
  constexpr int64_t kGathered = 1024;
  const FilterRows& query = filter.query();
  const int64_t d = exact.d, total = static_cast<int64_t>(failed.size());
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
      const bool full = static_cast<int64_t>(heap.size()) == output.k;
      if (full && heap.front() < neighbour) return;  // k zeros of smaller indices: nothing beats them
      exact(i, &neighbour.second, 1, &neighbour.first);
      if (full) {
        if (!(neighbour < heap.front())) return;
        std::pop_heap(heap.begin(), heap.end());
        heap.pop_back();
      }
      heap.push_back(neighbour);
      std::push_heap(heap.begin(), heap.end());
      if (static_cast<int64_t>(heap.size()) < output.k) return;
      limit[r] = std::min(limit[r], filter.score_limit(i, heap.front().first));
    };
    scan_pairs(gathered, filter.base().rows, false, shape, nullptr, filter.base().half.data(), limit.data(), compare);
    for (int64_t r = 0; r < n; ++r) {
      std::sort_heap(nearest[r].begin(), nearest[r].end());
      output.write(failed[start + r].first, nearest[r]);
    }
  }
}

// (distances [M, k] f32, indices [M, k] i64, number of rows redone). `block`: rows of a tile, 0 chooses (for tests).
// Which rows are redone depends on the order in which the threads find candidates, the answer does not.
std::tuple<Tensor, Tensor, Tensor> knn(const Tensor& x, int64_t k, const std::optional<Tensor>& y,
                                       std::string metric_name, int64_t block) {
  check_block(block);
  const Metric metric = check_knn(x, k, y ? &*y : nullptr, metric_name);
  const PairFilter filter(x, y ? &*y : nullptr, metric);
  const FilterRows &query = filter.query(), &base = filter.base();
  const int64_t queries = query.rows.size(0), n = base.rows.size(0), d = x.size(1);

  Tensor distances = new_tensor(query.rows, {queries, k});
  Tensor indices = new_tensor(query.rows, {queries, k}, ScalarType::Long);
  Tensor redone = new_tensor(query.rows, {}, ScalarType::Long);
  const Output output{distances.mutable_data_ptr<float>(), indices.mutable_data_ptr<int64_t>(), k, metric};
  const ExactDistance<float> exact{query.original.const_data_ptr<float>(),
                                   base.original.const_data_ptr<float>(),
                                   d,
                                   metric,
                                   query.squared.data(),
                                   base.squared.data()};

  Candidates candidates(filter, queries, n, k);
  scan_pairs(query.rows, base.rows, filter.self(), tile_shape(queries, n, filter.self(), block), query.half.data(),
             base.half.data(), candidates.limits(),
             [&](int64_t i, int64_t j, float score) { candidates.add(i, j, score); });
  const auto failed = settle(candidates, exact, queries, filter.self(), output);
  redo(filter, exact, failed, block, output);
  *redone.mutable_data_ptr<int64_t>() = static_cast<int64_t>(failed.size());
  return {distances, indices, redone};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ise_fast, CPU, m) {
  m.impl("knn", OPERATOR(knn));
}

}  // namespace ise_fast
