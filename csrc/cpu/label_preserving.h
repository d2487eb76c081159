// The label-preserving term (ISE, section 3.3): each feature against all supports of the batch, grouped by label.
//
// A feature meets one support a label: the least similar of its own, the most similar of every other. So the gradient
// is sparse, B x (number of labels) numbers, and is applied as sums of few rows.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "head.h"
#include "parallel.h"
#include "supports.h"

namespace ise_fast {

template <class T>
class LabelPreserving {
public:
  LabelPreserving(const Head<T>& head, const Supports<T>& supports, double tau)
      : head_(head), supports_(supports), tau_(tau), group_(head.rows), loss_(head.rows) {
    std::unordered_map<int64_t, int64_t> group_of;
    for (int64_t i = 0; i < head.rows; ++i) {
      group_[i] = group_of.emplace(head.label[i], static_cast<int64_t>(group_of.size())).first->second;
    }
    groups_ = static_cast<int64_t>(group_of.size());
    members_.resize(groups_);
    for (int64_t i = 0; i < head.rows; ++i) members_[group_[i]].push_back(i);
    choices_.resize(head.rows * groups_);
  }

  // similarity(r, s): inner product of feature i with support s, which is one of feature r. Rows may be added by
  // several threads.
  template <class Similarity>
  void add_row(int64_t i, const Similarity& similarity) {
    constexpr double kEpsilon = 1e-6;  // both constants of the published loss
    Choice* const choice = choices_.data() + i * groups_;
    for (int64_t g = 0; g < groups_; ++g) {
      const T sign = g == group_[i] ? T{-1} : T{1};
      Choice best{-1, 0, 0};
      for (const int64_t r : members_[g]) {
        for (int64_t s = r * supports_.k; s < (r + 1) * supports_.k; ++s) {
          const T value = similarity(r, s);
          if (best.support < 0 || sign * value > sign * best.similarity) best = {s, value, 0};
        }
      }
      choice[g] = best;
    }
    // Everything is divided by exp(top), epsilon too: no overflow for a small temperature.
    double top = 0;
    for (int64_t g = 0; g < groups_; ++g) top = std::max(top, choice[g].similarity / tau_);
    double others = kEpsilon * std::exp(-top), positive = 0;
    for (int64_t g = 0; g < groups_; ++g) {
      const double e = std::exp(choice[g].similarity / tau_ - top);
      choice[g].weight = e;
      (g == group_[i] ? positive : others) += e;
    }
    const double sum = positive + others, ratio = positive / sum;
    loss_[i] = -std::log(ratio + kEpsilon);
    const double scale = 1 / ((ratio + kEpsilon) * sum * sum * tau_ * static_cast<double>(head_.rows));
    for (int64_t g = 0; g < groups_; ++g) {
      choice[g].weight *= g == group_[i] ? -scale * others : scale * positive;
    }
  }

  double mean() const {
    double sum = 0;
    for (const double loss : loss_) sum += loss;
    return sum / static_cast<double>(head_.rows);
  }

  // [B, d] of the mean.
  void gradient(T* out) const {
    // With g_is the derivative with respect to f_i . s:
    //   df_i   = sum over s of g_is s
    //   df_own += sum over i of g_is (f_i - (f_i . s) s) / n_s     for the support's own feature
    const int64_t d = head_.d, k = supports_.k, rows = head_.rows, count = rows * k;
    std::vector<int64_t> begin(count + 1, 0), users(choices_.size());
    for (const Choice& c : choices_) ++begin[c.support + 1];
    for (int64_t s = 0; s < count; ++s) begin[s + 1] += begin[s];
    std::vector<int64_t> next(begin.begin(), begin.end() - 1);
    for (size_t c = 0; c < choices_.size(); ++c) users[next[choices_[c].support]++] = static_cast<int64_t>(c);

    constexpr int64_t kRows = 256;
    std::vector<Part> parts;
    std::vector<int64_t> ends;
    for (int64_t first = 0; first < rows; first += kRows) {
      parts.clear();
      ends.clear();
      for (int64_t i = first; i < std::min(first + kRows, rows); ++i) {
        for (int64_t g = 0; g < groups_; ++g) {
          const Choice& c = choices_[i * groups_ + g];
          parts.push_back({static_cast<T>(c.weight), rows + c.support});
        }
        for (int64_t s = i * k; s < (i + 1) * k; ++s) {
          if (begin[s] == begin[s + 1]) continue;
          double along = 0;
          for (int64_t u = begin[s]; u < begin[s + 1]; ++u) {
            const Choice& c = choices_[users[u]];
            along += c.weight * c.similarity;
            parts.push_back({static_cast<T>(c.weight / supports_.norm[s]), users[u] / groups_});
          }
          parts.push_back({static_cast<T>(-along / supports_.norm[s]), rows + s});
        }
        ends.push_back(static_cast<int64_t>(parts.size()));
      }
      sum(parts, ends, out + first * d);
    }
  }

private:
  // Part of a sum: a row by its number among the features and, after them, the supports.
  struct Part {
    T weight;
    int64_t row;
  };

  // out: [number of ends, d], the sums of parts up to each end. By strips of columns, whose rows are copied together:
  // at their own distance, a power of two, they would share few sets of the cache.
  void sum(const std::vector<Part>& parts, const std::vector<int64_t>& ends, T* out) const {
    constexpr int64_t kStrip = 128;
    const int64_t d = head_.d, rows = head_.rows, all = rows * (1 + supports_.k), strips = (d + kStrip - 1) / kStrip;
    parallel_blocks(strips, [&](Blocks& next) {
      const std::unique_ptr<T[]> packed(new T[all * kStrip]);
      std::vector<Term<T>> terms;
      terms.reserve(parts.size());
      for (const Part& part : parts) terms.push_back({part.weight, packed.get() + part.row * kStrip});
      for (int64_t strip = next(); strip < strips; strip = next()) {
        const int64_t column = strip * kStrip, width = std::min(kStrip, d - column);
        for (int64_t r = 0; r < all; ++r) {
          const T* const row = r < rows ? head_.feature + r * d : supports_.row + (r - rows) * d;
          std::copy_n(row + column, width, packed.get() + r * kStrip);
        }
        int64_t begin = 0;
        for (size_t i = 0; i < ends.size(); begin = ends[i++]) {
          combine(out + i * d + column, false, terms.data() + begin, ends[i] - begin, 0, width);
        }
      }
    });
  }

  struct Choice {
    int64_t support;
    T similarity;
    double weight;  // derivative of the mean with respect to the similarity
  };

  const Head<T>& head_;
  const Supports<T> supports_;
  const double tau_;
  int64_t groups_ = 0;
  std::vector<int64_t> group_;                 // [B]
  std::vector<std::vector<int64_t>> members_;  // rows of each group
  std::vector<double> loss_;
  std::vector<Choice> choices_;
};

}  // namespace ise_fast
