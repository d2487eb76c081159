// The filter's score falls with the distance, so the rows go in against their own negatives: the furthest row then has
// the smallest score. Whatever comes within twice the margin of the smallest is compared exactly.
#include "furthest.h"

#include <limits>
#include <utility>

#include "exact_distance.h"

namespace ise_fast {
namespace {

class Furthest {
public:
  Furthest(const PairFilter& filter, int64_t d)
      : rows_(filter.base().original.const_data_ptr<float>()),
        d_(d),
        limit_(filter.base().half.size(), std::numeric_limits<float>::infinity()),
        margin_(limit_.size()),
        distance_(limit_.size()),
        near_(limit_.size()) {
    for (size_t i = 0; i < margin_.size(); ++i) margin_[i] = filter.margin(static_cast<int64_t>(i));
  }

  const float* limits() const { return limit_.data(); }

  void add(int64_t i, int64_t j, float score) {
    if (!(score <= limit_[i])) return;
    limit_[i] = std::min(limit_[i], above(score + 2 * margin_[i]));
    near_[i].emplace_back(score, static_cast<int32_t>(j));
    if (near_[i].size() == kRoom) settle(i);  // ties: what was compared needs no room
  }

  std::vector<double> finish() {
    parallel_for(0, static_cast<int64_t>(near_.size()), 16, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) settle(i);
    });
    return std::move(distance_);
  }

private:
  static constexpr size_t kRoom = 32;

  void settle(int64_t i) {
    int32_t index[kRoom] = {};
    double distance[kRoom];
    int64_t count = 0;
    for (const auto& [score, j] : near_[i]) {
      index[count] = j;
      count += score <= limit_[i];
    }
    squared_distances(rows_ + i * d_, rows_, d_, index, count, distance);
    for (int64_t c = 0; c < count; ++c) distance_[i] = std::max(distance_[i], distance[c]);
    near_[i].clear();
  }

  const float* rows_;
  int64_t d_;
  std::vector<float> limit_;
  std::vector<double> margin_;
  std::vector<double> distance_;
  std::vector<std::vector<std::pair<float, int32_t>>> near_;  // (score, row) not yet compared
};

}  // namespace

std::vector<double> furthest_squared(const PairFilter& filter, int64_t d, int64_t block) {
  const FilterRows& base = filter.base();
  const int64_t n = base.rows.size(0);
  Tensor negative = new_tensor(base.rows, {n, d});
  const auto* row = base.rows.const_data_ptr<float>();
  auto* out = negative.mutable_data_ptr<float>();
  parallel_for(0, n, 16, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin * d; c < end * d; ++c) out[c] = -row[c];
  });
  std::vector<float> half(base.half);
  for (float& value : half) value = -value;

  Furthest furthest(filter, d);
  scan_pairs(row_matrix(base.rows), row_matrix(negative), true, tile_shape(n, n, true, block), half.data(), half.data(),
             furthest.limits(), [&](int64_t i, int64_t j, float score) { furthest.add(i, j, score); });
  return furthest.finish();
}

}  // namespace ise_fast
