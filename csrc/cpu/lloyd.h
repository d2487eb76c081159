// The state of Lloyd's iterations: which centre every row belongs to, how far it is, and bounds for the other centres.
//
// A product in T proposes centres, float64 distances decide. Between iterations lower bounds of the distances (Elkan,
// ICML 2003) leave most pairs of row and centre out; what they leave is compared exactly, so the labels are those of
// the plain method.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "../math/row_sum.h"
#include "changed.h"
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
    if (keep_bounds && n_ * k_ <= kMostBounds) bound_.resize(n_ * k_);
  }

  // Every row against every centre.
  void assign_all() {
    const int64_t blocks = (n_ + kBlock - 1) / kBlock;
    parallel_blocks(blocks, [&](Blocks& next) {
      std::vector<T> product;
      for (int64_t b = next(); b < blocks; b = next()) assign_block(b * kBlock, product);
    });
    count_labels();
  }

  // The same after the centres moved by at most `moved`.
  void assign_moved(const std::vector<float>& moved) {
    if (bound_.empty()) return assign_all();
    const int64_t blocks = (n_ + kBlock - 1) / kBlock;
    parallel_blocks(blocks, [&](Blocks& next) {
      std::vector<T> product, approximate;
      std::vector<int32_t> left;
      std::vector<double> exact;
      for (int64_t b = next(); b < blocks; b = next()) {
        const int64_t begin = b * kBlock, end = std::min(n_, begin + kBlock);
        int64_t open = 0;
        for (int64_t i = begin; i < end; ++i) {
          const auto own = static_cast<int32_t>(label_[i]);
          squared_distances(row_ + i * d_, centre_.data(), d_, &own, 1, &distance_[i]);
          open += lower_bounds(bound_.data() + i * k_, moved.data(), reach(i));
        }
        if (open * kScatteredCost > (end - begin) * k_) {
          assign_block(begin, product);
          continue;
        }
        for (int64_t i = begin; i < end; ++i) compare_left(i, left, approximate, exact);
      }
    });
    count_labels();
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

  void measure_centres() {
    const std::vector<double> lengths = row_lengths(centre_.data(), k_, d_, "centres");
    longest_ = *std::max_element(lengths.begin(), lengths.end());
    half_.resize(k_);
    for (int64_t c = 0; c < k_; ++c) half_[c] = static_cast<T>(lengths[c] * lengths[c] / 2);
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
  double reach(int64_t i) const { return std::sqrt(distance_[i]) * (1 + 1e-9); }

  // Lowers a row's bounds by what the centres moved; returns how many are within reach.
  int64_t lower_bounds(float* bound, const float* moved, double reach) const {
    const float limit = std::nextafter(static_cast<float>(reach), kInfinity);
    int64_t open = 0;
    for (int64_t c = 0; c < k_; ++c) {
      bound[c] = (bound[c] - moved[c]) * 0.9999998f;  // the factor pays for rounding
      open += bound[c] <= limit;
    }
    return open;
  }

  // Centres within reach of row i, exactly.
  void compare_left(int64_t i, std::vector<int32_t>& left, std::vector<T>& approximate, std::vector<double>& exact) {
    float* const bound = bound_.data() + i * k_;
    const float limit = std::nextafter(static_cast<float>(reach(i)), kInfinity);
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

  void assign_block(int64_t begin, std::vector<T>& product) {
    const int64_t rows = std::min(kBlock, n_ - begin);
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
        if (!bound_.empty()) fill_bounds(begin + r, score, from, columns);
      }
    }
    std::vector<int32_t> left;
    std::vector<double> exact;
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
    const double least = length_[i] * length_[i] * (1 - 1e-12) - 2 * (static_cast<double>(score) + margin(i));
    return least > 0 ? static_cast<float>(std::sqrt(least)) * 0.9999998f : 0.0f;
  }

  void fill_bounds(int64_t i, const T* score, int64_t from, int64_t columns) {
    float* const bound = bound_.data() + i * k_ + from;
    const double square = length_[i] * length_[i] * (1 - 1e-12) - 2 * margin(i);
    for (int64_t c = 0; c < columns; ++c) {
      const double least = square - 2 * static_cast<double>(score[c]);
      bound[c] = least > 0 ? static_cast<float>(std::sqrt(least)) * 0.9999998f : 0.0f;
    }
  }

  void count_labels() {
    std::fill(count_.begin(), count_.end(), 0);
    for (const int64_t label : label_) ++count_[label];
  }

  const Tensor x_;
  const T* const row_;
  const int64_t n_, d_, k_;
  const double product_error_;  // asks the library: once
  std::vector<T> centre_, half_;
  std::vector<double> length_;
  double longest_ = 0;
  std::vector<int64_t> label_;
  std::vector<double> distance_;
  std::vector<int64_t> count_;
  std::vector<float> bound_;  // [n, k] or empty
};

}  // namespace ise_fast
