// Softmax of features against all rows of a table in one pass over tiles of the table: the sum of exponentials and the
// exponentials' mean of table rows are kept relative to the largest logit so far and shrink when a larger one comes.
// Nothing of size B x R is kept, and the gradient needs no second product with the table's transpose.
//
// Each sample has some columns apart: its targets, whose logits the caller needs one by one and in float64 (so that a
// probability that rounds to 1 keeps its gradient), and columns that it leaves out.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "matrix.h"
#include "rows.h"

namespace ise_fast {

// Vectorised loops over a run of columns. scale: null, or the factor of each product; 0 leaves the column out.
template <class T>
struct ColumnRun {
  T* z;  // products
  const T* scale;
  int64_t count;
};

// Largest scaled product, at least `top`; guard becomes NaN where a product is not finite.
float largest_product(const ColumnRun<float>& run, float top, float& guard);
double largest_product(const ColumnRun<double>& run, double top, double& guard);

// z becomes e scale with e = exp((z scale - top) / tau); returns the sum of e.
double exponentials(const ColumnRun<float>& run, float top, float inverse_tau);
double exponentials(const ColumnRun<double>& run, double top, double inverse_tau);

// A column with a part of its own in a sample's loss.
template <class T>
struct Apart {
  int64_t column;
  double weight;  // of the target; excluded columns have none
  bool excluded;
  T product = 0;  // scaled
};

template <class T>
struct SampleSums {
  T top = -std::numeric_limits<T>::infinity();  // largest scaled product, targets included
  double rest = 0;                              // sum of exp((product - top) / tau) over the columns not apart
};

template <class T>
class OnlineSoftmax {
public:
  // scale: [R] or null, see ColumnRun.
  OnlineSoftmax(Matrix<const T> features, Matrix<const T> table, const T* scale, double tau)
      : features_(features), table_(table), scale_(scale), inverse_tau_(static_cast<T>(1 / tau)) {}

  // Samples `chosen` against table rows [begin, end). apart: for each sample ascending columns, receives their
  // products. sums: [B]. mean: null or [B, d], receives the sum of e scale times the row over the columns not apart.
  // False if a product is not finite.
  bool run(const std::vector<int64_t>& chosen, int64_t begin, int64_t end, std::vector<std::vector<Apart<T>>>& apart,
           std::vector<SampleSums<T>>& sums, T* mean) const {
    const auto count = static_cast<int64_t>(chosen.size());
    const int64_t d = features_.columns;
    const bool all = count == features_.rows;
    std::vector<T> gathered(all ? 0 : count * d), gathered_mean(all || !mean ? 0 : count * d);
    for (int64_t s = 0; !all && s < count; ++s) std::copy_n(features_.data + chosen[s] * d, d, gathered.data() + s * d);
    const Matrix<const T> f{all ? features_.data : gathered.data(), count, d, d};
    T* const sum_rows = mean ? (all ? mean : gathered_mean.data()) : nullptr;
    if (sum_rows) std::fill_n(sum_rows, count * d, T{0});

    const int64_t width = std::min(end - begin, std::max<int64_t>(kTileNumbers / std::max<int64_t>(count, 1), 1024));
    std::vector<T> tile(count * width);
    std::vector<int64_t> next(count, 0);  // the first column apart that no tile has had yet
    std::vector<uint8_t> bad(count, 0);
    for (int64_t from = begin; from < end; from += width) {
      const int64_t columns = std::min(width, end - from);
      const Matrix<const T> rows = table_.block(from, columns, 0, d);
      multiply<T>({tile.data(), count, columns, columns}, f, rows.transposed());
      parallel_for(0, count, 4, [&](int64_t first, int64_t last) {
        for (int64_t s = first; s < last; ++s) {
          const int64_t i = chosen[s];
          const double shrink = add_tile(tile.data() + s * columns, from, columns, apart[i], next[s], sums[i], bad[s]);
          if (!sum_rows || shrink == 1) continue;
          for (int64_t c = 0; c < d; ++c) sum_rows[s * d + c] *= static_cast<T>(shrink);
        }
      });
      if (sum_rows) multiply<T>({sum_rows, count, d, d}, {tile.data(), count, columns, columns}, rows, true);
    }
    if (sum_rows && !all) {
      for (int64_t s = 0; s < count; ++s) std::copy_n(sum_rows + s * d, d, mean + chosen[s] * d);
    }
    return std::none_of(bad.begin(), bad.end(), [](uint8_t b) { return b != 0; });
  }

private:
  static constexpr int64_t kTileNumbers = int64_t{1} << 20;

  // Returns the factor by which what was summed before has shrunk.
  double add_tile(T* z, int64_t from, int64_t columns, std::vector<Apart<T>>& apart, int64_t& next, SampleSums<T>& sums,
                  uint8_t& bad) const {
    const auto size = static_cast<int64_t>(apart.size());
    int64_t stop = next;
    while (next < size && apart[next].column < from) stop = ++next;  // before the range
    while (stop < size && apart[stop].column < from + columns) ++stop;
    const auto runs = [&](const auto& body) {
      int64_t start = 0;
      for (int64_t a = next; a <= stop; ++a) {
        const int64_t until = a < stop ? apart[a].column - from : columns;
        if (until > start) body(ColumnRun<T>{z + start, scale_ ? scale_ + from + start : nullptr, until - start});
        start = until + 1;
      }
    };
    T top = sums.top, guard = 0;
    for (int64_t a = next; a < stop; ++a) {
      const int64_t c = apart[a].column;
      apart[a].product = scale_ ? z[c - from] * scale_[c] : z[c - from];
      guard += apart[a].product * T{0};
      if (!apart[a].excluded) top = std::max(top, apart[a].product);
    }
    runs([&](const ColumnRun<T>& run) { top = largest_product(run, top, guard); });
    if (!(guard == 0)) bad = 1;
    const double shrink =
        sums.top == top ? 1.0 : std::exp((static_cast<double>(sums.top) - top) * static_cast<double>(inverse_tau_));
    sums.top = top;
    sums.rest *= shrink;
    runs([&](const ColumnRun<T>& run) { sums.rest += exponentials(run, top, inverse_tau_); });
    for (int64_t a = next; a < stop; ++a) z[apart[a].column - from] = 0;
    next = stop;
    return shrink;
  }

  const Matrix<const T> features_, table_;
  const T* const scale_;
  const T inverse_tau_;
};

// The exponentials of a sample's targets next to the sum of all others, each without cancellation.
class TargetShares {
public:
  // rest: sum over the columns that are no targets, relative to the same top as `logit` (already divided by tau).
  TargetShares(const std::vector<double>& relative_logits, double rest) : logits_(relative_logits), rest_(rest) {
    for (const double l : logits_) exponential_.push_back(std::exp(l));
    total_ = rest_;
    for (const double e : exponential_) total_ += e;
  }
  double total() const { return total_; }
  double exponential(size_t j) const { return exponential_[j]; }
  // total - exponential(j)
  double others(size_t j) const {
    if (exponential_[j] < 0.5 * total_) return total_ - exponential_[j];
    double sum = rest_;
    for (size_t k = 0; k < exponential_.size(); ++k) {
      if (k != j) sum += exponential_[k];
    }
    return sum;
  }
  // -log of the target's probability
  double surprise(size_t j) const {
    return exponential_[j] > 1e-100 ? std::log1p(others(j) / exponential_[j]) : std::log(total_) - logits_[j];
  }

private:
  std::vector<double> logits_, exponential_;
  double rest_, total_;
};

}  // namespace ise_fast
