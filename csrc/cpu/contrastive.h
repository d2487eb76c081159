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
        // Half of float's range: neither e_c nor its quotient by their sum can leave it.
        bounded_(2.002 * longest / tau <= 84),
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
        gram_ ? clusters : std::clamp<int64_t>(kTileNumbers / std::max<int64_t>(slots(), 1), 1024, clusters);
    for (int64_t tile = 0; tile < clusters; tile += width) {
      load_tile(tile, std::min(width, clusters - tile));
      for_samples([&](int64_t i) { add_sums(i); });
    }
    for_samples([&](int64_t i) { loss[i - begin_] = sample_loss(i); });
    if (!gradient) return;
    for (int64_t tile = 0; tile < clusters; tile += width) {
      if (width < clusters) load_tile(tile, std::min(width, clusters - tile));
      for_samples([&](int64_t i) { fill_weights(i); });
      multiply<T>({gradient + begin * d, count, d, d}, {products + tile, count, tile_columns_, clusters},
                  head_.c().block(tile, tile_columns_, 0, d), tile > 0);
    }
    for_samples([&](int64_t i) { project(i, gradient + i * d); });
  }

private:
  static constexpr int64_t kTileNumbers = int64_t{1} << 24;

  struct RowState {
    T own = 0, inverse_norm = 0, top = 0;
    double s = 0, t = 0;  // sums of softmax.h; after sample_loss divided by the denominator
    double denominator = 1;
  };

  template <class Body>
  void for_samples(const Body& body) const {
    torch::stable::parallel_for(begin_, begin_ + count_, 4, [&](int64_t first, int64_t last) {
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

  // body(from, to) for the columns of the tile before and after the own one.
  template <class Body>
  void around_own(int64_t i, const Body& body) const {
    const int64_t own = head_.label[i] - tile_;
    body(0, std::clamp<int64_t>(own, 0, tile_columns_));
    body(std::clamp<int64_t>(own + 1, 0, tile_columns_), tile_columns_);
  }

  void add_sums(int64_t i) {
    for (int64_t r = 0; r < per_sample(); ++r) {
      RowState& s = state(i, r);
      SoftmaxRow<T> row = softmax_row(i, r);
      if (!bounded_) {  // the online form: what was summed so far moves to the new top
        around_own(i, [&](int64_t from, int64_t to) { row.top = softmax_top(row, from, to); });
        const double shrink = std::exp(static_cast<double>(s.top) - row.top);
        s.s *= shrink;
        s.t *= shrink;
        s.top = row.top;
      }
      around_own(i, [&](int64_t from, int64_t to) {
        const SoftmaxSums sums = softmax_sums(row, from, to);
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

  // W = sum over the sample's rows of (P - Y) / n, scaled; takes the place of the products.
  void fill_weights(int64_t i) {
    thread_local std::vector<T> weights;
    weights.assign(tile_columns_, T{0});
    const int64_t own = head_.label[i] - tile_;
    for (int64_t r = 0; r < per_sample(); ++r) {
      const RowState& s = state(i, r);
      const double scale = scale_ * s.inverse_norm;
      SoftmaxRow<T> row = softmax_row(i, r);
      double divisor = s.denominator;
      if (divisor > 1e16) {  // its reciprocal would be subnormal in float32: into the exponent with it
        row.top += static_cast<T>(std::log(divisor));
        divisor = 1;
      }
      around_own(i, [&](int64_t from, int64_t to) {
        softmax_add(row, static_cast<T>(scale / divisor), weights.data(), from, to);
      });
      if (0 <= own && own < tile_columns_) weights[own] -= static_cast<T>(scale * s.s);
    }
    std::copy(weights.begin(), weights.end(), products_ + (i - begin_) * head_.clusters + tile_);
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
