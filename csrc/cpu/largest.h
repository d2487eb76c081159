// The rows of a table most similar to one feature, exact, from approximate similarities that come in pieces.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <vector>

#include "nearest.h"
#include "rows.h"

namespace ise_fast {

// The best `count` by (similarity falling, index rising); the similarity is the fixed-order float64 inner product
// rounded to T. What may still belong to them is kept: an approximate similarity of at least the count-th best so far
// less twice `error`, for |approximate - exact| <= error (see nearest.h).
template <class T>
class LargestOfRow {
public:
  LargestOfRow(int64_t count, double error) : count_(count), error_(error), most_(2 * count + 64) {}

  // Similarities of columns [first, first + n).
  void offer(const T* approximate, int64_t first, int64_t n) {
    if (count_ == 0) return;
    for (int64_t c = 0; c < n; ++c) {
      if (!(approximate[c] >= limit_)) continue;
      kept_.push_back({approximate[c], first + c});
      if (static_cast<int64_t>(kept_.size()) >= most_) tighten();
    }
  }

  // What may belong to the answer, by approximate similarity.
  const std::vector<Candidate<T>>& kept() {
    tighten();
    return kept_;
  }

  // The answer, at most `count` of them, the best first. The last call.
  const std::vector<Candidate<T>>& finish(const T* feature, const T* table, int64_t d) {
    tighten();
    for (Candidate<T>& candidate : kept_) {
      // Adding +0 turns -0 into +0.
      candidate.similarity = static_cast<T>(inner_product(feature, table + candidate.index * d, d)) + T{0};
    }
    const auto end = kept_.begin() + std::min<int64_t>(count_, static_cast<int64_t>(kept_.size()));
    std::partial_sort(kept_.begin(), end, kept_.end(), [](const auto& a, const auto& b) {
      return a.similarity > b.similarity || (a.similarity == b.similarity && a.index < b.index);
    });
    kept_.erase(end, kept_.end());
    return kept_;
  }

private:
  void tighten() {
    if (static_cast<int64_t>(kept_.size()) <= count_) return;
    const auto kth = kept_.begin() + (count_ - 1);
    std::nth_element(kept_.begin(), kth, kept_.end(),
                     [](const auto& a, const auto& b) { return a.similarity > b.similarity; });
    limit_ = static_cast<T>(
        std::nextafter(static_cast<T>(kth->similarity - 2 * error_), -std::numeric_limits<T>::infinity()));
    std::erase_if(kept_, [&](const auto& candidate) { return candidate.similarity < limit_; });
    // Many ties: look again when twice as many have come.
    most_ = std::max<int64_t>(2 * count_ + 64, 2 * static_cast<int64_t>(kept_.size()));
  }

  const int64_t count_;
  const double error_;
  int64_t most_;
  T limit_ = -std::numeric_limits<T>::infinity();
  std::vector<Candidate<T>> kept_;
};

// Similarities of samples with the whole table, a tile of columns at a time: body(i, similarities, first column,
// columns) for every sample i of each tile, from several threads but never from two at once for one i.
template <class T, class Body>
void for_tiles(Matrix<const T> features, Matrix<const T> table, const Body& body) {
  constexpr int64_t kTileNumbers = int64_t{1} << 20;
  const int64_t count = features.rows, all = table.rows;
  const int64_t width = std::min(all, std::max<int64_t>(kTileNumbers / std::max<int64_t>(count, 1), 1024));
  std::vector<T> tile(count * width);
  for (int64_t from = 0; from < all; from += width) {
    const int64_t columns = std::min(width, all - from);
    multiply<T>({tile.data(), count, columns, columns}, features,
                table.block(from, columns, 0, table.columns).transposed());
    parallel_for(0, count, 4, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) body(i, tile.data() + i * columns, from, columns);
    });
  }
}

// body(from, until) for the runs of [begin, end) between the ascending numbers `apart`.
template <class Apart, class Body>
void between(int64_t begin, int64_t end, const Apart& apart, const Body& body) {
  int64_t start = begin;
  for (auto a = std::lower_bound(apart.begin(), apart.end(), begin); a != apart.end() && *a < end; ++a) {
    if (*a > start) body(start, *a);
    start = *a + 1;
  }
  if (end > start) body(start, end);
}

}  // namespace ise_fast
