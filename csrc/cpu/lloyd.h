// The state of Lloyd's iterations: which centre every row belongs to, how far it is, and bounds for the other centres.
//
// A product in T proposes centres, float64 distances decide. Between iterations lower bounds of the distances (Elkan,
// ICML 2003) leave most pairs of row and centre out, and so do a few principal axes where they hold most of the rows;
// what they leave is compared exactly, so the labels are those of the plain method.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <type_traits>
#include <vector>

#include "../math/row_sum.h"
#include "centre_prefixes.h"
#include "changed.h"
#include "distance_bounds.h"
#include "exact_distance.h"
#include "head.h"
#include "lane_dots.h"
#include "largest.h"
#include "parallel.h"
#include "scaled.h"

namespace ise_fast {

template <class T>
class Lloyd {
public:
  // `keep_bounds`: whether assign_moved will be called; more numbers than kMostBounds are not kept.
  Lloyd(const Tensor& x, const Tensor& centres, bool keep_bounds)
      : x_(row_major(x)),
        row_(x_.const_data_ptr<T>()),
        n_(x.size(0)),
        d_(x.size(1)),
        k_(centres.size(0)),
        product_error_(product_error<T>(d_)),
        label_(n_, -1),
        distance_(n_),
        count_(k_, 0) {
    const Tensor c = row_major(centres);
    centre_.assign(c.const_data_ptr<T>(), c.const_data_ptr<T>() + k_ * d_);
    length_ = row_lengths(row_, n_, d_, "x");
    measure_centres();
    if (!keep_bounds || n_ * k_ > kMostBounds) return;
    bound_.resize(n_ * k_);
    if constexpr (std::is_same_v<T, float>) {
      prefixes_ = CentrePrefixes::choose({{row_, n_, d_, d_}, length_.data()}, measured_centres());
    }
  }

  // Every row against every centre.
  void assign_all() {
    for_blocks([&](int64_t begin, int64_t end, Scratch& scratch) {
      if (prefixes_) {
        guess(begin, end, scratch);
        finish(begin, end, scratch);
      } else {
        assign_block(begin, end, scratch);
      }
    });
  }

  // The same after the centres moved by at most `moved`.
  void assign_moved(const std::vector<float>& moved) {
    if (bound_.empty()) return assign_all();
    for_blocks([&](int64_t begin, int64_t end, Scratch& scratch) {
      for (int64_t i = begin; i < end; ++i) {
        measure_own(i);
        lower_bounds(bounds_of(i), moved.data(), k_);
      }
      if (prefixes_ && open(begin, end) * kScatteredCost * d_ > (end - begin) * k_ * prefixes_->columns()) {
        tighten(begin, end, scratch);
      }
      finish(begin, end, scratch);
    });
  }

  // The labels and, by `counts`, their numbers when empty centres, lowest first, have taken the row farthest from its
  // own centre.
  std::vector<int64_t> filled() {
    std::vector<int64_t> label = label_;
    if (std::find(count_.begin(), count_.end(), 0) == count_.end()) return label;
    std::vector<double> distance = distance_;
    for (int64_t c = 0; c < k_; ++c) {
      if (count_[c] > 0) continue;
      poll_interrupt();
      int64_t farthest = -1;
      for (int64_t i = 0; i < n_; ++i) {
        if (count_[label[i]] > 1 && (farthest < 0 || distance[i] > distance[farthest])) farthest = i;
      }
      --count_[label[farthest]];
      ++count_[c];
      label[farthest] = c;
      distance[farthest] = 0;
    }
    return label;
  }

  // sums: [k, d] float64 of the clusters with wanted[c], in row order; count_ has the numbers of the labels.
  void sum_rows(const std::vector<int64_t>& label, const std::vector<uint8_t>& wanted, double* sums) const {
    std::vector<int64_t> start(k_ + 1, 0), order(n_);
    for (int64_t c = 0; c < k_; ++c) start[c + 1] = start[c] + count_[c];
    std::vector<int64_t> at(start.begin(), start.end() - 1);
    for (int64_t i = 0; i < n_; ++i) order[at[label[i]]++] = i;
    parallel_tasks(k_, [&](int64_t c) {
      if (!wanted[c]) return;
      std::fill_n(sums + c * d_, d_, 0.0);
      for (int64_t r = start[c]; r < start[c + 1]; ++r) add_row(sums + c * d_, row_ + order[r] * d_, d_);
    });
  }

  // Means of the clusters of `label`, made by filled(), that gained or lost a row since `before`; returns how far each
  // centre moved, rounded up.
  std::vector<float> move_centres(const std::vector<int64_t>& label, const std::vector<int64_t>& before) {
    std::vector<uint8_t> changed(k_, before.empty());
    for (int64_t i = 0; !before.empty() && i < n_; ++i) {
      if (label[i] != before[i]) changed[label[i]] = changed[before[i]] = 1;
    }
    std::vector<double> sums(k_ * d_);
    sum_rows(label, changed, sums.data());
    std::vector<float> moved(k_, 0);
    parallel_for(0, k_, 4, [&](int64_t first, int64_t last) {
      for (int64_t c = first; c < last; ++c) {
        if (!changed[c]) continue;
        double square = 0;
        for (int64_t j = c * d_; j < (c + 1) * d_; ++j) {
          const T mean = static_cast<T>(sums[j] / static_cast<double>(count_[c]));
          const double step = static_cast<double>(mean) - static_cast<double>(centre_[j]);
          square += step * step;
          centre_[j] = mean;
        }
        moved[c] = std::nextafter(static_cast<float>(std::sqrt(square) * (1 + 1e-9)), kInfinity);
      }
    });
    measure_centres();
    return moved;
  }

  double inertia() const { return sum_of_rows(distance_.data(), n_); }
  const std::vector<int64_t>& labels() const { return label_; }
  const std::vector<int64_t>& counts() const { return count_; }
  const std::vector<double>& distances() const { return distance_; }
  const std::vector<T>& centres() const { return centre_; }

private:
  static constexpr int64_t kBlock = 256;  // rows of one product
  static constexpr int64_t kMostBounds = int64_t{1} << 27;
  static constexpr int64_t kScatteredCost = 3;  // of a pair compared alone, in pairs of a product
  static constexpr float kInfinity = std::numeric_limits<float>::infinity();

  // What a thread needs for a block.
  struct Scratch {
    std::vector<T> product, approximate;
    std::vector<int32_t> left;
    std::vector<double> exact;
  };

  // body(begin, end, scratch) of blocks of rows, by several threads; then the labels are counted.
  template <class Body>
  void for_blocks(const Body& body) {
    const int64_t blocks = (n_ + kBlock - 1) / kBlock;
    parallel_blocks(blocks, [&](Blocks& next) {
      Scratch scratch;
      for (int64_t b = next(); b < blocks; b = next()) body(b * kBlock, std::min(n_, (b + 1) * kBlock), scratch);
    });
    std::fill(count_.begin(), count_.end(), 0);
    for (const int64_t label : label_) ++count_[label];
  }

  MeasuredRows measured_centres() const
    requires std::is_same_v<T, float>
  {
    return {{centre_.data(), k_, d_, d_}, centre_length_.data()};
  }

  void measure_centres() {
    centre_length_ = row_lengths(centre_.data(), k_, d_, "centres");
    longest_ = *std::max_element(centre_length_.begin(), centre_length_.end());
    half_.resize(k_);
    centre_square_.resize(k_);
    for (int64_t c = 0; c < k_; ++c) {
      const double square = centre_length_[c] * centre_length_[c];
      half_[c] = static_cast<T>(square / 2);
      centre_square_[c] = square * (1 - 1e-12);
    }
    if constexpr (std::is_same_v<T, float>) {
      if (prefixes_) prefixes_->move(measured_centres());
    }
  }

  // How far x.c - |c|^2 / 2 in T can be from half of |x|^2 less the float64 squared distance.
  double margin(int64_t i) const {
    constexpr double u = std::numeric_limits<T>::epsilon() / 2, range = sizeof(T) == 4 ? 0x1p60 : 0x1p480;
    const double x = length_[i], longest = std::max(x, longest_);
    if (longest > range || (longest < 1 / range && longest > 0)) return std::numeric_limits<double>::infinity();
    const auto d = static_cast<double>(d_);
    return x * longest_ * (product_error_ + 8 * u) + 4 * u * longest_ * longest_ +
           (d + 32) * 0x1p-52 * (x + longest_) * (x + longest_) + d * 1e-37;
  }

  // A centre whose lower bound is above this is farther than the own one, whatever the rounding.
  float reach(int64_t i) const {
    return std::nextafter(static_cast<float>(std::sqrt(distance_[i]) * (1 + 1e-9)), kInfinity);
  }

  // How many centres are within reach of rows [begin, end).
  int64_t open(int64_t begin, int64_t end) {
    int64_t count = 0;
    for (int64_t i = begin; i < end; ++i) count += bounds_within(bounds_of(i), reach(i), k_);
    return count;
  }

  void measure_own(int64_t i) {
    const auto own = static_cast<int32_t>(label_[i]);
    squared_distances(row_ + i * d_, centre_.data(), d_, &own, 1, &distance_[i]);
  }

  // Lower bounds from the prefixes, where they are better.
  void tighten(int64_t begin, int64_t end, Scratch& scratch) {
    if constexpr (std::is_same_v<T, float>) {
      scratch.product.resize((end - begin) * k_);
      prefixes_->products(begin, end - begin, scratch.product.data());
      for (int64_t i = begin; i < end; ++i) {
        const double own = length_[i] * length_[i] * (1 - 1e-12) - 2 * prefixes_->slack();
        raise_bounds(bounds_of(i), own, centre_square_.data(), scratch.product.data() + (i - begin) * k_, k_);
      }
    }
  }

  // Of rows without a label the centre that the prefixes find most promising.
  void guess(int64_t begin, int64_t end, Scratch& scratch) {
    std::fill(bound_.begin() + begin * k_, bound_.begin() + end * k_, 0.0f);
    tighten(begin, end, scratch);
    for (int64_t i = begin; i < end; ++i) {
      const float* const bound = bounds_of(i);
      label_[i] = std::min_element(bound, bound + k_) - bound;
      measure_own(i);
    }
  }

  // Compares what the bounds leave.
  void finish(int64_t begin, int64_t end, Scratch& scratch) {
    if (open(begin, end) * kScatteredCost > (end - begin) * k_) return assign_block(begin, end, scratch);
    for (int64_t i = begin; i < end; ++i) compare_left(i, scratch);
  }

  // Centres within reach of row i, exactly.
  void compare_left(int64_t i, Scratch& scratch) {
    auto& [_, approximate, left, exact] = scratch;
    float* const bound = bounds_of(i);
    const float limit = reach(i);
    left.clear();
    for (int64_t c = 0; c < k_; ++c) {
      if (bound[c] <= limit && c != label_[i]) left.push_back(static_cast<int32_t>(c));
    }
    if (left.empty()) return;
    bound[label_[i]] = below(distance_[i]);
    const auto count = static_cast<int64_t>(left.size());
    approximate.resize(left.size());
    approximate_dots(row_ + i * d_, centre_.data(), d_, left.data(), count, approximate.data());
    int64_t near = 0;  // of those the ones that the approximate products do not rule out
    for (int64_t l = 0; l < count; ++l) {
      const int32_t c = left[l];
      bound[c] = lower_bound(i, approximate[l] - half_[c]);
      if (bound[c] <= limit) left[near++] = c;
    }
    exact.resize(near);
    squared_distances(row_ + i * d_, centre_.data(), d_, left.data(), near, exact.data());
    for (int64_t l = 0; l < near; ++l) {
      bound[left[l]] = below(exact[l]);
      take(i, left[l], exact[l]);
    }
  }

  void take(int64_t i, int64_t c, double distance) {
    if (distance > distance_[i] || (distance == distance_[i] && c > label_[i])) return;
    distance_[i] = distance;
    label_[i] = c;
  }

  static float below(double squared) {
    return std::max(0.0f, std::nextafter(static_cast<float>(std::sqrt(squared) * (1 - 1e-9)), -kInfinity));
  }

  void assign_block(int64_t begin, int64_t end, Scratch& scratch) {
    auto& [product, _, left, exact] = scratch;
    const int64_t rows = end - begin;
    const int64_t width = std::min<int64_t>(k_, 1024);
    product.resize(rows * width);
    std::vector<LargestOfRow<T>> search;
    for (int64_t i = begin; i < begin + rows; ++i) search.emplace_back(1, margin(i));
    for (int64_t from = 0; from < k_; from += width) {
      const int64_t columns = std::min(width, k_ - from);
      multiply_tile<T>({product.data(), rows, columns, columns}, {row_ + begin * d_, rows, d_, d_},
                       Matrix<const T>{centre_.data() + from * d_, columns, d_, d_}.transposed(), false);
      for (int64_t r = 0; r < rows; ++r) {
        T* const score = product.data() + r * columns;
        for (int64_t c = 0; c < columns; ++c) score[c] -= half_[from + c];
        search[r].offer(score, from, columns);
        if (bound_.empty()) continue;
        const double length = length_[begin + r];
        fill_bounds(bounds_of(begin + r) + from, length * length * (1 - 1e-12) - 2 * margin(begin + r), score, columns);
      }
    }
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t i = begin + r;
      left.clear();
      if (!std::isfinite(margin(i))) {  // products of such numbers say nothing
        for (int32_t c = 0; c < k_; ++c) left.push_back(c);
      } else {
        for (const Candidate<T>& candidate : search[r].kept()) left.push_back(static_cast<int32_t>(candidate.index));
      }
      if (left.empty()) throw_changed("x");
      exact.resize(left.size());
      squared_distances(row_ + i * d_, centre_.data(), d_, left.data(), static_cast<int64_t>(left.size()),
                        exact.data());
      label_[i] = left[0];
      distance_[i] = exact[0];
      for (size_t l = 1; l < left.size(); ++l) take(i, left[l], exact[l]);
    }
  }

  // Of the distance: |x - c|^2 >= |x|^2 - 2 (score + margin). NaN, of products beyond T, is nothing known.
  float lower_bound(int64_t i, T score) const {
    float bound;
    fill_bounds(&bound, length_[i] * length_[i] * (1 - 1e-12) - 2 * margin(i), &score, 1);
    return bound;
  }

  float* bounds_of(int64_t i) { return bound_.data() + i * k_; }

  const Tensor x_;
  const T* const row_;
  const int64_t n_, d_, k_;
  const double product_error_;  // asks the library: once
  std::vector<T> centre_, half_;
  std::vector<double> length_, centre_length_, centre_square_;  // the square rounded down
  double longest_ = 0;
  std::vector<int64_t> label_;
  std::vector<double> distance_;
  std::vector<int64_t> count_;
  std::vector<float> bound_;                  // [n, k] or empty
  std::unique_ptr<CentrePrefixes> prefixes_;  // or null
};

}  // namespace ise_fast
