// The contrastive term and its gradient for a block of samples: the features themselves and their supports, against all
// centroids (algebra: docs/architecture.md, "The ISE head in two products").
//
// The logits of a support come from Z = F C^T and two rows of the Gram matrix, so supports cost no product with C, and
// the gradient of all 1 + k rows of a sample is one row of weights W times C. Without a Gram matrix its rows for the
// centroids in question are computed tile by tile.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "../math/exp_bounded.h"
#include "head.h"
#include "softmax.h"
#include "supports.h"

namespace ise_fast {

template <class T>
class Contrastive {
public:
  // gram: [K, K] or null. longest: length of the longest centroid.
  Contrastive(const Head<T>& head, const Supports<T>& supports, T degree, double tau, const T* gram, double longest)
      : head_(head),
        supports_(supports),
        degree_(degree),
        inverse_tau_(static_cast<T>(1 / tau)),
        gram_(gram),
        bounded_(exponents_are_bounded(longest, tau)),
        scale_(1 / (tau * head.rows * (1 + supports.k))) {}

  // Samples [begin, begin + count). products: [count, K], their inner products with the centroids, overwritten.
  // loss: [count] sum over the rows of each sample. gradient: [B, d] of the mean, rows of the block written; or null.
  void run(int64_t begin, int64_t count, T* products, double* loss, T* gradient) {
    begin_ = begin;
    count_ = count;
    products_ = products;
    const int64_t clusters = head_.clusters, d = head_.d;
    collect_rows();
    const int64_t width =
        gram_ ? clusters : std::min(clusters, std::max<int64_t>(kTileNumbers / std::max<int64_t>(slots(), 1), 1024));
    // The exponentials of one sample stay in the cache until its weights are made, unless they are too many.
    const bool keep = width >= clusters && per_sample() * clusters <= kKeptNumbers;
    for (int64_t tile = 0; tile < clusters; tile += width) {
      load_tile(tile, std::min(width, clusters - tile));
      for_samples([&](int64_t i) {
        T* const e = keep && gradient ? scratch(clusters) : nullptr;
        add_sums(i, e);
        if (tile + width < clusters) return;
        loss[i - begin_] = sample_loss(i);
        if (e) fill_weights(i, e, 0, clusters, true);
      });
    }
    if (!gradient) return;
    for (int64_t tile = 0; tile < clusters; tile += width) {
      if (width < clusters) load_tile(tile, std::min(width, clusters - tile));
      if (!keep) {
        for_samples([&](int64_t i) {
          for (int64_t from = 0; from < tile_columns_; from += kPiece) {
            fill_weights(i, scratch(kPiece), from, std::min(from + kPiece, tile_columns_), false);
          }
        });
      }
      multiply<T>({gradient + begin * d, count, d, d}, {products + tile, count, tile_columns_, clusters},
                  head_.c().block(tile, tile_columns_, 0, d), tile > 0);
    }
    for_samples([&](int64_t i) { project(i, gradient + i * d); });
  }

private:
  static constexpr int64_t kTileNumbers = int64_t{1} << 24, kKeptNumbers = int64_t{1} << 16, kPiece = 4096;

  struct RowState {
    T own = 0, inverse_norm = 0, top = 0;
    double s = 0, t = 0;  // sums of softmax.h; after sample_loss divided by the denominator
    double denominator = 1;
  };

  template <class Body>
  void for_samples(const Body& body) const {
    parallel_for(begin_, begin_ + count_, 4, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) body(i);
    });
  }

  int64_t per_sample() const { return 1 + supports_.k; }
  int64_t slots() const { return static_cast<int64_t>(slot_ids_.size()); }
  RowState& state(int64_t i, int64_t r) { return states_[(i - begin_) * per_sample() + r]; }
  int64_t slot_of(int64_t id) const {
    return gram_ ? id : std::lower_bound(slot_ids_.begin(), slot_ids_.end(), id) - slot_ids_.begin();
  }

  // Which rows of the Gram matrix the block needs, and what each softmax row starts from.
  void collect_rows() {
    const int64_t k = supports_.k, d = head_.d, clusters = head_.clusters;
    slot_ids_.clear();
    if (!gram_ && k > 0) {
      slot_ids_.assign(head_.label + begin_, head_.label + begin_ + count_);
      slot_ids_.insert(slot_ids_.end(), supports_.nearest + begin_ * k, supports_.nearest + (begin_ + count_) * k);
      std::sort(slot_ids_.begin(), slot_ids_.end());
      slot_ids_.erase(std::unique(slot_ids_.begin(), slot_ids_.end()), slot_ids_.end());
      slot_rows_.resize(slots() * d);
      for (int64_t s = 0; s < slots(); ++s) {
        std::copy_n(head_.centroid + slot_ids_[s] * d, d, slot_rows_.data() + s * d);
      }
    }
    states_.assign(count_ * per_sample(), {});
    for_samples([&](int64_t i) {
      const int64_t own = head_.label[i];
      const T z_own = products_[(i - begin_) * clusters + own];
      RowState& feature = state(i, 0);
      feature.inverse_norm = static_cast<T>(1 / std::max(head_.norm[i], kShortestNorm));
      feature.own = z_own * feature.inverse_norm;
      const T own_own = k == 0 ? T{0} : gram(own, own);
      for (int64_t j = 0; j < k; ++j) {
        RowState& support = state(i, 1 + j);
        support.inverse_norm = T{1} / supports_.norm[i * k + j];
        support.own = (z_own + degree_ * (gram(supports_.nearest[i * k + j], own) - own_own)) * support.inverse_norm;
      }
    });
  }

  T gram(int64_t a, int64_t b) const {
    if (gram_) return gram_[a * head_.clusters + b];
    return static_cast<T>(inner_product(head_.centroid + a * head_.d, head_.centroid + b * head_.d, head_.d));
  }

  void load_tile(int64_t tile, int64_t columns) {
    tile_ = tile;
    tile_columns_ = columns;
    if (gram_) {
      tile_rows_ = gram_;
      tile_stride_ = head_.clusters;
    } else if (supports_.k > 0) {
      tile_buffer_.resize(slots() * columns);
      tile_rows_ = tile_buffer_.data();
      tile_stride_ = columns;
      multiply<T>({tile_buffer_.data(), slots(), columns, columns}, {slot_rows_.data(), slots(), head_.d, head_.d},
                  head_.c().block(tile, columns, 0, head_.d).transposed());
    }
  }

  SoftmaxRow<T> softmax_row(int64_t i, int64_t r) {
    const T* z = products_ + (i - begin_) * head_.clusters + tile_;
    const RowState& s = state(i, r);
    if (r == 0) return {z, z, z, T{0}, s.inverse_norm, s.own, inverse_tau_, s.top};
    const T* m = tile_rows_ + slot_of(supports_.nearest[i * supports_.k + r - 1]) * tile_stride_;
    const T* o = tile_rows_ + slot_of(head_.label[i]) * tile_stride_;
    return {z, m, o, degree_, s.inverse_norm, s.own, inverse_tau_, s.top};
  }

  // A thread's own [1 + k, columns].
  T* scratch(int64_t columns) const {
    thread_local std::vector<T> numbers;
    numbers.resize(std::max<int64_t>(numbers.size(), per_sample() * columns));
    return numbers.data();
  }

  // body(from, to) for columns [begin, end) of the tile before and after the own one.
  template <class Body>
  void around_own(int64_t i, int64_t begin, int64_t end, const Body& body) const {
    const int64_t own = head_.label[i] - tile_;
    body(begin, std::clamp(own, begin, end));
    body(std::clamp(own + 1, begin, end), end);
  }

  // e: null or [1 + k, columns of the tile], receives the exponentials.
  void add_sums(int64_t i, T* e) {
    for (int64_t r = 0; r < per_sample(); ++r) {
      RowState& s = state(i, r);
      SoftmaxRow<T> row = softmax_row(i, r);
      if (!bounded_) {  // the online form: what was summed so far moves to the new top
        around_own(i, 0, tile_columns_, [&](int64_t from, int64_t to) { row.top = softmax_top(row, from, to); });
        const double shrink = std::exp(static_cast<double>(s.top) - row.top);
        s.s *= shrink;
        s.t *= shrink;
        s.top = row.top;
      }
      around_own(i, 0, tile_columns_, [&](int64_t from, int64_t to) {
        const SoftmaxSums sums = softmax_sums(row, e ? e + r * tile_columns_ + from : nullptr, from, to);
        s.s += sums.s;
        s.t += sums.t;
      });
    }
  }

  double sample_loss(int64_t i) {
    double loss = 0;
    for (int64_t r = 0; r < per_sample(); ++r) {
      RowState& s = state(i, r);
      s.denominator = s.s + std::exp(-static_cast<double>(s.top));
      loss += s.top == 0 ? std::log1p(s.s) : std::log(s.denominator) + s.top;
      s.s /= s.denominator;
      s.t /= s.denominator;
    }
    return loss;
  }

  // W = sum over the sample's rows of (P - Y) / n, scaled, for columns [begin, end) of the tile; takes the place of the
  // products. e: [1 + k, end - begin], the exponentials if `kept`.
  void fill_weights(int64_t i, T* e, int64_t begin, int64_t end, bool kept) {
    thread_local std::vector<Term<T>> terms;
    terms.clear();
    const int64_t own = head_.label[i] - tile_;
    const bool has_own = begin <= own && own < end;
    T own_weight = 0;
    for (int64_t r = 0; r < per_sample(); ++r) {
      const RowState& s = state(i, r);
      const double scale = scale_ * s.inverse_norm;
      T* const numbers = e + r * (end - begin);
      SoftmaxRow<T> row = softmax_row(i, r);
      double divisor = s.denominator;
      const bool huge = divisor > 1e16;  // its reciprocal would be subnormal in float32: into the exponent with it
      if (huge) {
        row.top += static_cast<T>(std::log(divisor));
        divisor = 1;
      }
      if (huge || !kept) {
        around_own(i, begin, end,
                   [&](int64_t from, int64_t to) { softmax_sums(row, numbers + (from - begin), from, to); });
      }
      if (has_own) numbers[own - begin] = 0;
      own_weight -= static_cast<T>(scale * s.s);
      terms.push_back({static_cast<T>(scale / divisor), numbers});
    }
    T* const weights = products_ + (i - begin_) * head_.clusters + tile_ + begin;
    combine(weights, false, terms.data(), per_sample(), 0, end - begin);
    if (has_own) weights[own - begin] = own_weight;
  }

  // A unit row takes no gradient along itself.
  void project(int64_t i, T* gradient) {
    thread_local std::vector<Term<T>> terms;
    terms.clear();
    const RowState& f = state(i, 0);
    terms.push_back({static_cast<T>(-scale_ * f.t * f.inverse_norm * f.inverse_norm), head_.feature + i * head_.d});
    for (int64_t j = 0; j < supports_.k; ++j) {
      const RowState& s = state(i, 1 + j);
      terms.push_back(
          {static_cast<T>(-scale_ * s.t * s.inverse_norm), supports_.row + (i * supports_.k + j) * head_.d});
    }
    combine(gradient, true, terms.data(), static_cast<int64_t>(terms.size()), 0, head_.d);
  }

  const Head<T>& head_;
  const Supports<T> supports_;
  const T degree_, inverse_tau_;
  const T* const gram_;
  const bool bounded_;
  const double scale_;

  int64_t begin_ = 0, count_ = 0, tile_ = 0, tile_columns_ = 0, tile_stride_ = 0;
  T* products_ = nullptr;
  const T* tile_rows_ = nullptr;
  std::vector<RowState> states_;
  std::vector<int64_t> slot_ids_;
  std::vector<T> slot_rows_, tile_buffer_;
};

}  // namespace ise_fast
