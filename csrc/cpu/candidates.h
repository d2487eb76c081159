// What may be among the k nearest rows of each query, while the tiles of the filter go by.
#pragma once

#include <cmath>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "../math/ordered_key.h"
#include "cascade.h"

namespace ise_fast {

// For every query the rows with score <= limit. Without a cascade the limit follows the k-th smallest score seen, plus
// twice the margin. With one, scores are lower bounds of the first prefix and say nothing of the k-th row from above.
// So the most promising rows are looked at with the second prefix, and the limit is a guess a little above the middle
// of its bounds (the upper ones would keep half as many rows again); `certified` tells whether it was high enough.
class Candidates {
public:
  Candidates(const PairFilter& filter, const Cascade* cascade, int64_t queries, int64_t base, int64_t k)
      : filter_(filter),
        cascade_(cascade),
        k_(k),
        base_(base),
        capacity_(candidate_room(base, k)),
        keys_(new uint64_t[queries * capacity_]),
        count_(queries),
        refined_(cascade != nullptr ? queries : 0),
        larger_(cascade != nullptr ? queries : 0),
        limit_(queries, std::numeric_limits<float>::infinity()),
        overflowed_(queries) {}

  const float* limits() const { return limit_.data(); }
  // Given up: there are k rows with small scores, but not all that matter.
  bool overflowed(int64_t i) const { return overflowed_[i] != 0; }

  // Always, unless rows became NaN during the call.
  bool enough(int64_t i) const { return count_[i] >= k_; }

  void add(int64_t i, int64_t j, float score) {
    if (!(score <= limit_[i])) return;
    row(i)[count_[i]++] = ascending_key(score, static_cast<uint32_t>(j));
    if (count_[i] < room(i)) return;
    if (overflowed(i)) return keep_smallest(i);
    tighten(i, k_);
    if (crowded(i) && cascade_ != nullptr) tighten(i, count_[i]);
    if (!crowded(i) || count_[i] == base_) return;
    // Too many stay within the margin (ties, duplicates): give the row up before it costs more than the exact redo. The
    // bounds of prefixes are wide, so that a cascade may need some more room.
    if (cascade_ == nullptr || room(i) >= kMostRoom * capacity_) {
      overflowed_[i] = 1;
      keep_smallest(i);
    } else {
      grow(i);
    }
  }

  // Drops what cannot be among the k nearest any more, for what the filter knows.
  void finish(int64_t i) { tighten(i, count_[i]); }

  // Whether no row that was dropped can be at a compared distance of at most `distance`; needed with a cascade only.
  bool certified(int64_t i, double distance) const {
    return filter_.exact_score(i, distance) <= limit_[i] - cascade_->margin(i);
  }

  // Drops, behind the first k, what cannot be at a compared distance of at most `distance`.
  void drop_beyond(int64_t i, double distance) {
    const Within near{above(filter_.exact_score(i, distance) + cascade_->margin(i))};
    const uint64_t* end = std::partition(row(i) + k_, row(i) + count_[i], near);
    count_[i] = static_cast<int32_t>(end - row(i));
  }

  // The k smallest scores first.
  void nearest_first(int64_t i) { std::nth_element(row(i), row(i) + k_ - 1, row(i) + count_[i]); }

  // Calls visit(j) for every candidate of query i.
  template <class Visit>
  void each(int64_t i, const Visit& visit) const {
    const uint64_t* keys = row(i);
    for (int32_t c = 0; c < count_[i]; ++c) visit(key_index(keys[c]));
  }

  void take(int64_t i, std::vector<int32_t>& indices) const {
    indices.resize(count_[i]);
    std::transform(row(i), row(i) + count_[i], indices.begin(), key_index);
  }

private:
  struct Within {
    float limit;
    bool operator()(uint64_t key) const { return ascending_value(key) <= limit; }
  };

  // A list that has outgrown its place in keys_.
  struct Larger {
    std::unique_ptr<uint64_t[]> keys;
    int64_t room = 0;
  };

  const uint64_t* row(int64_t i) const {
    return cascade_ != nullptr && larger_[i].keys ? larger_[i].keys.get() : keys_.get() + i * capacity_;
  }
  uint64_t* row(int64_t i) { return const_cast<uint64_t*>(std::as_const(*this).row(i)); }
  int64_t room(int64_t i) const { return cascade_ != nullptr && larger_[i].keys ? larger_[i].room : capacity_; }

  void grow(int64_t i) {
    const int64_t twice = std::min(2 * room(i), base_);
    Larger larger{std::unique_ptr<uint64_t[]>(new uint64_t[twice]), twice};
    std::copy_n(row(i), count_[i], larger.keys.get());
    larger_[i] = std::move(larger);
  }
  // Smaller scores may still come: the k smallest are good for a bound of the distance.
  void keep_smallest(int64_t i) {
    nearest_first(i);
    count_[i] = static_cast<int32_t>(k_);
    limit_[i] = std::nextafterf(ascending_value(row(i)[k_ - 1]), -std::numeric_limits<float>::infinity());
  }
  bool crowded(int64_t i) const { return count_[i] > room(i) - room(i) / 8; }

  void tighten(int64_t i, int64_t most) {
    uint64_t* keys = row(i);
    if (cascade_ == nullptr) {
      std::nth_element(keys, keys + k_ - 1, keys + count_[i]);
      limit_[i] = above(ascending_value(keys[k_ - 1]) + 2 * filter_.margin(i));
      const uint64_t* end = std::partition(keys + k_, keys + count_[i], Within{limit_[i]});
      count_[i] = static_cast<int32_t>(end - keys);
      return;
    }
    refine(i, std::min<int64_t>(most, count_[i] - refined_[i]));
    uint64_t* unseen = std::partition(keys, keys + refined_[i], Within{limit_[i]});
    const uint64_t* end = std::partition(keys + refined_[i], keys + count_[i], Within{limit_[i]});
    const auto seen = static_cast<int32_t>(unseen - keys), left = static_cast<int32_t>(end - keys) - refined_[i];
    std::copy_n(keys + refined_[i], left, unseen);
    refined_[i] = seen;
    count_[i] = seen + left;
  }

  // Looks at the `most` smallest of the scores of the first prefix with the second one. The list of a row begins with
  // those that were looked at.
  void refine(int64_t i, int64_t most) {
    constexpr int64_t kGroup = 64;
    uint64_t* fresh = row(i) + refined_[i];
    const int64_t waiting = count_[i] - refined_[i];
    if (most < waiting) std::nth_element(fresh, fresh + most, fresh + waiting);
    int32_t index[kGroup];
    float low[kGroup];
    for (int64_t start = 0; start < most; start += kGroup) {
      const int64_t n = std::min(kGroup, most - start);
      for (int64_t c = 0; c < n; ++c) index[c] = static_cast<int32_t>(key_index(fresh[start + c]));
      cascade_->second_scores(i, index, n, low);
      for (int64_t c = 0; c < n; ++c) fresh[start + c] = ascending_key(low[c], index[c]);
    }
    refined_[i] += static_cast<int32_t>(most);
    if (refined_[i] < k_) return;
    thread_local std::vector<float> guess;
    guess.resize(refined_[i]);
    const uint64_t* keys = row(i);
    for (int32_t c = 0; c < refined_[i]; ++c) {
      const float gap = cascade_->half_gap(i, static_cast<int32_t>(key_index(keys[c])));
      // The smaller of the two, and never NaN, which has no order: rows may have changed during the call.
      guess[c] = std::min(std::numeric_limits<float>::infinity(), ascending_value(keys[c]) + kGuess * gap);
    }
    std::nth_element(guess.begin(), guess.begin() + k_ - 1, guess.end());
    limit_[i] = std::min(limit_[i], above(guess[k_ - 1] + 2 * cascade_->margin(i)));
  }

  static constexpr int64_t kMostRoom = 4;  // times the capacity of all

  // Where between the bounds of the second prefix the exact score is taken to be, 0 to 2. Measured on features of a
  // network: at 1, the middle, the guess is too low for a fifth of the rows, at 1.25 for a hundredth or none.
  static constexpr float kGuess = 1.25f;

  const PairFilter& filter_;
  const Cascade* cascade_;
  int64_t k_, base_, capacity_;
  std::unique_ptr<uint64_t[]> keys_;  // [queries, capacity]
  std::vector<int32_t> count_, refined_;
  std::vector<Larger> larger_;
  std::vector<float> limit_;
  std::vector<uint8_t> overflowed_;
};

}  // namespace ise_fast
