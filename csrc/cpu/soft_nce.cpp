// Contrast with several weighted targets, with its gradient. Against all rows of a range the softmax runs online over
// tiles of the table; against the hardest negatives only these are looked at once they are found.
#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "../check_methods.h"
#include "changed.h"
#include "head.h"
#include "largest.h"
#include "online_softmax.h"
#include "operator.h"
#include "scaled.h"

namespace ise_fast {
namespace {

// One sample: loss and the weights of the rows in its gradient, all over B tau later.
//
//   loss = sum_j (1 - a) w_j surprise_j + a W (log sum - mean of the logits over D)
//   dF   = W sum_r p_r v_r - (1 - a) sum_j w_j v_j - a W mean of v over D
template <class T>
struct Sample {
  std::vector<Apart<T>> apart;  // by column; targets distinct
  double smooth = 0, total = 0;
  int64_t begin = 0, end = 0;
  int64_t left_out() const {
    return std::count_if(apart.begin(), apart.end(), [](const auto& a) { return a.excluded; });
  }
};

template <class T>
class SoftNCE {
public:
  SoftNCE(const Tensor& features, const Tensor& table, double tau)
      : f_(factor(features)),
        v_(factor(table)),
        feature_(f_.const_data_ptr<T>()),
        row_(v_.const_data_ptr<T>()),
        rows_(f_.size(0)),
        d_(f_.size(1)),
        all_(v_.size(0)),
        tau_(tau),
        samples_(rows_),
        loss_(rows_) {}

  void read(const Tensor& columns, const Tensor& weights, const std::optional<Tensor>& smooth,
            const std::optional<Tensor>& ranges, const std::optional<Tensor>& excluded) {
    const Tensor y = row_major(columns), w = row_major(weights);
    const int64_t s = y.size(1), e = excluded ? excluded->size(1) : 0;
    const std::vector<int64_t> column = copy_of(y.const_data_ptr<int64_t>(), y.numel());
    const T* const weight = w.const_data_ptr<T>();
    const Tensor a = row_major(smooth ? *smooth : w);
    const Tensor bounds = row_major(ranges ? *ranges : y);
    const Tensor out = row_major(excluded ? *excluded : y);
    for (int64_t i = 0; i < rows_; ++i) {
      Sample<T>& sample = samples_[i];
      sample.smooth = smooth ? a.const_data_ptr<T>()[i] : T{0};
      check(0 <= sample.smooth && sample.smooth <= 1, "smooth: expected numbers in [0, 1], got ", sample.smooth,
            " at row ", i);
      sample.end = all_;
      if (ranges) {
        sample.begin = bounds.const_data_ptr<int64_t>()[2 * i];
        sample.end = bounds.const_data_ptr<int64_t>()[2 * i + 1];
        check(0 <= sample.begin && sample.begin <= sample.end && sample.end <= all_,
              "ranges: expected 0 <= first <= end <= ", all_, ", got ", sample.begin, " and ", sample.end, " at row ",
              i);
      }
      for (int64_t j = 0; j < e; ++j) {
        const int64_t c = out.const_data_ptr<int64_t>()[i * e + j];
        check(-1 <= c && c < all_, "excluded: expected -1 to ", all_ - 1, ", got ", c, " at row ", i);
        if (sample.begin <= c && c < sample.end) sample.apart.push_back({c, 0, true});
      }
      for (int64_t j = i * s; j < (i + 1) * s; ++j) {
        check(-1 <= column[j] && column[j] < all_, "columns: expected -1 to ", all_ - 1, ", got ", column[j],
              " at row ", i);
        if (column[j] < 0) continue;
        check(weight[j] >= 0 && std::isfinite(weight[j]), "weights: expected finite numbers of at least 0, got ",
              weight[j], " at row ", i);
        check(sample.begin <= column[j] && column[j] < sample.end,
              "columns: expected rows of the sample's range that are not excluded, got ", column[j], " at row ", i);
        sample.apart.push_back({column[j], weight[j], false});
        sample.total += weight[j];
      }
      merge(sample.apart, i);
    }
  }

  // gradient: null or [B, d].
  double run(int64_t negatives, T* gradient) {
    if (negatives > 0) {
      against_hardest(negatives, gradient);
    } else {
      against_ranges(gradient);
    }
    double loss = 0;
    for (const double value : loss_) loss += value;
    return loss / static_cast<double>(rows_);
  }

private:
  // A repeated column becomes one.
  static void merge(std::vector<Apart<T>>& apart, int64_t i) {
    std::stable_sort(apart.begin(), apart.end(), [](const auto& a, const auto& b) { return a.column < b.column; });
    size_t kept = 0;
    for (const Apart<T>& next : apart) {
      if (kept > 0 && apart[kept - 1].column == next.column) {
        check(apart[kept - 1].excluded == next.excluded,
              "columns: expected rows of the sample's range that are not excluded, got ", next.column, " at row ", i);
        apart[kept - 1].weight += next.weight;
      } else {
        apart[kept++] = next;
      }
    }
    apart.resize(kept);
  }

  void against_ranges(T* gradient) {
    std::map<std::pair<int64_t, int64_t>, std::vector<int64_t>> groups;  // one product for samples of one range
    for (int64_t i = 0; i < rows_; ++i) groups[{samples_[i].begin, samples_[i].end}].push_back(i);
    std::vector<std::vector<Apart<T>>> apart(rows_);
    for (int64_t i = 0; i < rows_; ++i) apart[i] = std::move(samples_[i].apart);
    std::vector<SampleSums<T>> sums(rows_);
    const OnlineSoftmax<T> softmax({feature_, rows_, d_, d_}, {row_, all_, d_, d_}, nullptr, tau_);
    for (const auto& [range, chosen] : groups) {
      if (!softmax.run(chosen, range.first, range.second, apart, sums, gradient)) refuse_products<T>(f_, v_, "table");
      const bool spread = std::any_of(chosen.begin(), chosen.end(), [&](int64_t i) { return samples_[i].smooth > 0; });
      const std::vector<T> column_sum = spread ? sum_of(range.first, range.second) : std::vector<T>();
      parallel_for(0, static_cast<int64_t>(chosen.size()), 4, [&](int64_t first, int64_t last) {
        for (int64_t s = first; s < last; ++s) {
          const int64_t i = chosen[s];
          Sample<T>& sample = samples_[i];
          sample.apart = std::move(apart[i]);
          finish(i, sums[i].top, sums[i].rest, nullptr, column_sum.empty() ? nullptr : column_sum.data(), gradient);
        }
      });
    }
  }

  void against_hardest(int64_t negatives, T* gradient) {
    const std::vector<double> lengths = row_lengths(feature_, rows_, d_, "features");
    const std::vector<double> table_lengths = row_lengths(row_, all_, d_, "table");
    const double longest = table_lengths.empty() ? 0 : *std::max_element(table_lengths.begin(), table_lengths.end());
    check_products<T>(lengths, longest, "table");
    const ProductError<T> error(d_, longest);
    std::vector<LargestOfRow<T>> search;
    std::vector<std::vector<int64_t>> barred(rows_);
    for (int64_t i = 0; i < rows_; ++i) {
      search.emplace_back(std::min(negatives, all_), error(lengths[i]));
      for (const Apart<T>& a : samples_[i].apart) barred[i].push_back(a.column);
    }
    for_tiles<T>({feature_, rows_, d_, d_}, {row_, all_, d_, d_},
                 [&](int64_t i, const T* similarity, int64_t from, int64_t columns) {
                   const int64_t begin = std::max(from, samples_[i].begin);
                   const int64_t end = std::min(from + columns, samples_[i].end);
                   between(begin, end, barred[i], [&](int64_t start, int64_t until) {
                     search[i].offer(similarity + (start - from), start, until - start);
                   });
                 });
    parallel_for(0, rows_, 2, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        const std::vector<Candidate<T>>& hardest = search[i].finish(feature_ + i * d_, row_, d_);
        T top = -std::numeric_limits<T>::infinity();
        for (Apart<T>& a : samples_[i].apart) {
          a.product = static_cast<T>(inner_product(feature_ + i * d_, row_ + a.column * d_, d_)) + T{0};
          if (!a.excluded) top = std::max(top, a.product);
        }
        for (const Candidate<T>& candidate : hardest) top = std::max(top, candidate.similarity);
        double rest = 0;
        for (const Candidate<T>& candidate : hardest) rest += exponential(candidate.similarity, top);
        finish(i, top, rest, &hardest, nullptr, gradient);
      }
    });
  }

  double exponential(T product, T top) const { return std::exp((static_cast<double>(product) - top) / tau_); }

  // found: what D is made of beside the targets; null: D is the range, the gradient's row holds the sum of e v over its
  // columns that are not apart, and column_sum, where there is smoothing, the sum of v over the range.
  void finish(int64_t i, T top, double rest, const std::vector<Candidate<T>>* found, const T* column_sum, T* gradient) {
    const std::vector<Candidate<T>> none;
    const std::vector<Candidate<T>>& hardest = found ? *found : none;
    const Sample<T>& sample = samples_[i];
    T* const g = gradient ? gradient + i * d_ : nullptr;
    std::vector<double> logits;
    std::vector<const Apart<T>*> targets;
    for (const Apart<T>& a : sample.apart) {
      if (a.excluded) continue;
      targets.push_back(&a);
      logits.push_back((static_cast<double>(a.product) - top) / tau_);
    }
    if (!(sample.total > 0)) {
      loss_[i] = 0;
      if (g) std::fill_n(g, d_, T{0});
      return;
    }
    const TargetShares shares(logits, rest);
    const double keep = 1 - sample.smooth, w = sample.total;
    const double scale = 1 / (static_cast<double>(rows_) * tau_), share = w / shares.total();
    double loss = 0;
    std::vector<Term<T>> terms;
    const auto add = [&](double weight, const T* row) { terms.push_back({static_cast<T>(weight * scale), row}); };
    if (g && !found) add(share, g);
    for (size_t j = 0; j < targets.size(); ++j) {
      const double own = keep * targets[j]->weight;
      loss += own > 0 ? own * shares.surprise(j) : 0;
      // W p - own without cancellation where p is near 1
      add((shares.exponential(j) * (w - own) - own * shares.others(j)) / shares.total(),
          row_ + targets[j]->column * d_);
    }
    for (const Candidate<T>& c : hardest) add(share * exponential(c.similarity, top), row_ + c.index * d_);
    if (sample.smooth > 0) {
      const bool few = found != nullptr;
      const auto size = static_cast<double>(few ? static_cast<int64_t>(targets.size() + hardest.size())
                                                : sample.end - sample.begin - sample.left_out());
      const double each = sample.smooth * w / size;
      double logit_sum = column_sum ? inner_product(feature_ + i * d_, column_sum, d_) : 0;
      if (column_sum) add(-each, column_sum);
      for (const Apart<T>& a : sample.apart) {
        if (few == a.excluded) continue;
        logit_sum += few ? a.product : -a.product;
        add(few ? -each : each, row_ + a.column * d_);
      }
      for (const Candidate<T>& c : hardest) {
        logit_sum += c.similarity;
        add(-each, row_ + c.index * d_);
      }
      loss += sample.smooth * w * (std::log(shares.total()) + (top - logit_sum / size) / tau_);
    }
    loss_[i] = loss;
    if (!g) return;
    std::vector<T> row(d_);
    combine(row.data(), false, terms.data(), static_cast<int64_t>(terms.size()), 0, d_);
    std::copy(row.begin(), row.end(), g);
  }

  std::vector<T> sum_of(int64_t begin, int64_t end) const {
    std::vector<T> out(d_);
    constexpr int64_t kStrip = 256;
    parallel_tasks((d_ + kStrip - 1) / kStrip, [&](int64_t strip) {
      double sum[kStrip] = {};
      const int64_t column = strip * kStrip, width = std::min(kStrip, d_ - column);
      for (int64_t r = begin; r < end; ++r) add_row(sum, row_ + r * d_ + column, width);
      for (int64_t c = 0; c < width; ++c) out[column + c] = static_cast<T>(sum[c]);
    });
    return out;
  }

  const Tensor f_, v_;
  const T *const feature_, *const row_;
  const int64_t rows_, d_, all_;
  const double tau_;
  std::vector<Sample<T>> samples_;
  std::vector<double> loss_;
};

std::tuple<Tensor, Tensor> soft_nce_loss(const Tensor& features, const Tensor& table, const Tensor& columns,
                                         const Tensor& weights, double temperature, const std::optional<Tensor>& smooth,
                                         int64_t negatives, const std::optional<Tensor>& ranges,
                                         const std::optional<Tensor>& excluded, bool needs_gradient) {
  check_soft_nce_loss(features, table, columns, weights, temperature, smooth, negatives, ranges, excluded);
  const auto run = [&]<class T>(T) -> std::tuple<Tensor, Tensor> {
    SoftNCE<T> loss(features, table, temperature);
    loss.read(columns, weights, smooth, ranges, excluded);
    Tensor gradient = new_tensor(features, {needs_gradient ? features.size(0) : 0, features.size(1)});
    const double value = loss.run(negatives, needs_gradient ? gradient.mutable_data_ptr<T>() : nullptr);
    check_result<T>(value, "temperature");
    check_gradient<T>(gradient, "temperature");
    return {scalar<T>(features, value), gradient};
  };
  return features.scalar_type() == ScalarType::Double ? run(double{}) : run(float{});
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ise_fast, CPU, m) {
  m.impl("soft_nce_loss", OPERATOR(soft_nce_loss));
}

}  // namespace ise_fast
