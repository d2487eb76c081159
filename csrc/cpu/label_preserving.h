// The label-preserving term (ISE, section 3.3): each feature against all supports of the batch, grouped by label.
//
// A feature meets one support a label: the least similar of its own, the most similar of every other. So the gradient
// is sparse, B x (number of labels) numbers, and is applied as sums of few rows.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <unordered_map>
#include <vector>

#include "head.h"
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
    choices_.resize(head.rows * groups_);
  }

  // similarity: [B k] inner products of feature i with all supports. Rows may be added by several threads.
  void add_row(int64_t i, const T* similarity) {
    constexpr double kEpsilon = 1e-6;  // both constants of the published loss
    Choice* const choice = choices_.data() + i * groups_;
    for (int64_t g = 0; g < groups_; ++g) choice[g].support = -1;
    for (int64_t r = 0, s = 0; r < head_.rows; ++r) {
      Choice& c = choice[group_[r]];
      const bool own = group_[r] == group_[i];
      for (int64_t j = 0; j < supports_.k; ++j, ++s) {
        if (c.support < 0 || (own ? similarity[s] < c.similarity : similarity[s] > c.similarity)) {
          c = {s, similarity[s], 0};
        }
      }
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
    const int64_t d = head_.d, k = supports_.k, count = head_.rows * k;
    std::vector<int64_t> begin(count + 1, 0), users(choices_.size());
    for (const Choice& c : choices_) ++begin[c.support + 1];
    for (int64_t s = 0; s < count; ++s) begin[s + 1] += begin[s];
    std::vector<int64_t> next(begin.begin(), begin.end() - 1);
    for (size_t c = 0; c < choices_.size(); ++c) users[next[choices_[c].support]++] = static_cast<int64_t>(c);

    constexpr int64_t kStrip = 256, kRows = 64;  // the rows of a strip stay in the cache
    const int64_t strips = (d + kStrip - 1) / kStrip, blocks = (head_.rows + kRows - 1) / kRows;
    torch::stable::parallel_for(0, strips * blocks, 1, [&](int64_t first, int64_t last) {
      std::vector<Term<T>> terms;
      for (int64_t task = first; task < last; ++task) {
        const int64_t column = task / blocks * kStrip, row = task % blocks * kRows;
        for (int64_t i = row; i < std::min(row + kRows, head_.rows); ++i) {
          terms.clear();
          for (int64_t g = 0; g < groups_; ++g) {
            const Choice& c = choices_[i * groups_ + g];
            terms.push_back({static_cast<T>(c.weight), supports_.row + c.support * d});
          }
          for (int64_t s = i * k; s < (i + 1) * k; ++s) {
            double along = 0;
            for (int64_t u = begin[s]; u < begin[s + 1]; ++u) {
              const Choice& c = choices_[users[u]];
              along += c.weight * c.similarity;
              terms.push_back({static_cast<T>(c.weight / supports_.norm[s]), head_.feature + users[u] / groups_ * d});
            }
            if (begin[s] < begin[s + 1]) {
              terms.push_back({static_cast<T>(-along / supports_.norm[s]), supports_.row + s * d});
            }
          }
          combine(out + i * d, false, terms.data(), static_cast<int64_t>(terms.size()), column,
                  std::min(column + kStrip, d));
        }
      }
    });
  }

private:
  struct Choice {
    int64_t support;
    T similarity;
    double weight;  // derivative of the mean with respect to the similarity
  };

  const Head<T>& head_;
  const Supports<T> supports_;
  const double tau_;
  int64_t groups_ = 0;
  std::vector<int64_t> group_;
  std::vector<double> loss_;
  std::vector<Choice> choices_;
};

}  // namespace ise_fast
