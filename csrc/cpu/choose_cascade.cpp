// Whether principal axes pay, and how many: by predicted cost on a sample of rows.
#include <cmath>
#include <limits>
#include <numeric>

#include "cascade.h"

namespace ise_fast {
namespace {

// Costs, in multiply-adds of the library's product, measured on two busy cores with AVX2.
constexpr double kSearch = 80;       // the search of one score
constexpr double kPrefix = 16;       // a multiply-add of prefixes that lie anywhere
constexpr double kCandidate = 3000;  // a row that is kept, beside its products
constexpr double kExact = 16;        // a term of a float64 distance

constexpr int64_t kQueries = 64, kBase = 2048;  // rows of the sample
constexpr double kLeastWork = 2e9;              // a search of milliseconds is left alone
constexpr int64_t kLeastColumns = 32;
constexpr int64_t kSamples = 3;  // rows of the sample for each axis
constexpr int64_t kPilotRows = 256, kPilotWidth = 128;
constexpr double kPilotEnergy = 0.5;  // less in the axes of the pilot: no structure

int64_t spread(int64_t s, int64_t of, int64_t n) {
  return s * n / of;
}

std::vector<int64_t> evenly(int64_t count, int64_t n, int64_t shift) {
  std::vector<int64_t> rows(std::min(count, n));
  const auto of = static_cast<int64_t>(rows.size());
  for (int64_t s = 0; s < of; ++s) rows[s] = std::min(n - 1, spread(s, of, n) + shift);
  return rows;
}

// Rows of the filter, their prefixes and squared lengths; only to predict, so without care for rounding.
struct SampleSide {
  std::vector<int64_t> index;
  std::vector<float> rows, prefix;
  std::vector<double> left;  // squared length of what the prefix seen so far leaves

  SampleSide(const PairFilter& filter, const FilterRows& side, std::vector<int64_t> chosen, const Axes& axes)
      : index(std::move(chosen)), rows(index.size() * axes.d), prefix(index.size() * axes.width) {
    const auto* from = side.rows.const_data_ptr<float>();
    for (size_t s = 0; s < index.size(); ++s) {
      std::copy_n(from + index[s] * axes.d, axes.d, rows.data() + s * axes.d);
      const double length = filter.filter_length(side, index[s]);
      left.push_back(length * length);
    }
    const auto n = static_cast<int64_t>(index.size());
    multiply(Matrix<float>{prefix.data(), n, axes.width, axes.width},
             Matrix<const float>{rows.data(), n, axes.d, axes.d},
             Matrix<const float>{axes.q.data(), axes.d, axes.width, axes.width});
  }

  int64_t size() const { return static_cast<int64_t>(index.size()); }
  Matrix<const float> matrix(int64_t d) const { return {rows.data(), size(), d, d}; }
  Matrix<const float> columns(int64_t width, int64_t begin, int64_t end) const {
    return Matrix<const float>{prefix.data(), size(), width, width}.block(0, size(), begin, end - begin);
  }
  // Takes columns [begin, end) off `left`.
  void advance(int64_t width, int64_t begin, int64_t end) {
    for (int64_t s = 0; s < size(); ++s) {
      for (int64_t c = begin; c < end; ++c)
        left[s] -= static_cast<double>(prefix[s * width + c]) * prefix[s * width + c];
    }
  }
};

bool has_structure(const PairFilter& filter, int64_t n, int64_t d) {
  const FilterRows& base = filter.base();
  const int64_t width = std::min(kPilotWidth, d / 4);
  const Axes axes = principal_axes(base.rows.const_data_ptr<float>(), n, d, kPilotRows, width);
  SampleSide seen(filter, base, evenly(kQueries, n, n / kPilotRows / 2), axes);  // rows that the axes have not seen
  const double all = std::accumulate(seen.left.begin(), seen.left.end(), 0.0);
  seen.advance(width, 0, width);
  return all - std::accumulate(seen.left.begin(), seen.left.end(), 0.0) > kPilotEnergy * all;
}

// Rows left per query by one filter, by query of the sample.
using Left = std::vector<double>;

double mean(const Left& left) {
  return std::accumulate(left.begin(), left.end(), 0.0) / static_cast<double>(left.size());
}

class Prediction {
public:
  Prediction(const PairFilter& filter, Search search, const Axes& axes)
      : filter_(filter),
        search_(search),
        n_(filter.base().rows.size(0)),
        queries_(filter.query().rows.size(0)),
        d_(axes.d),
        pairs_(static_cast<double>(n_) / (filter.self() ? 2 : 1)) {
    SampleSide query(filter, filter.query(), evenly(kQueries, queries_, 0), axes);
    SampleSide base(filter, filter.base(), evenly(kBase, n_, n_ / kBase / 2), axes);
    std::vector<float> dots(query.size() * base.size());
    const Matrix<float> out{dots.data(), query.size(), base.size(), base.size()};
    multiply(out, query.matrix(d_), base.matrix(d_).transposed());
    find_limits(query, base, dots);
    full_ = count(query, base, dots, filter.relative(), 2, false);
    std::fill(dots.begin(), dots.end(), 0.0f);
    int64_t begin = 0;
    for (const int64_t width : kPrefixWidths) {
      if (width > axes.width) break;
      multiply(out, query.columns(axes.width, begin, width), base.columns(axes.width, begin, width).transposed(), true);
      query.advance(axes.width, begin, width);
      base.advance(axes.width, begin, width);
      widths_.push_back(width);
      left_.push_back(count(query, base, dots, prefix_slack(filter.factor_rounding(), axes, width), 1, true));
      begin = width;
    }
  }

  // The model: what the search costs per query. Every pair is multiplied and searched (half of them, twice, when rows
  // are compared with each other); what the first prefix leaves is looked at with the second, and some more while the
  // limits are still wide; what that leaves is compared exactly; and the rows must be rotated.
  double cost(size_t first, size_t second) const {
    const double refined = 1.5 * mean(left_[first]) + 2 * static_cast<double>(search_.k);
    const double rows = filter_.self() ? 1 : 1 + static_cast<double>(n_) / static_cast<double>(queries_);
    return pairs_ * static_cast<double>(widths_[first] + 1) + search_cost() +
           refined * (static_cast<double>(widths_[second]) * kPrefix + kCandidate) + exact_cost(left_[second], true) +
           rows * static_cast<double>(d_ * widths_[second]);
  }
  double full_cost() const { return pairs_ * static_cast<double>(d_) + search_cost() + exact_cost(full_, false); }

  std::optional<Widths> best() const {
    std::optional<Widths> best;
    double least = 0.9 * full_cost();
    for (size_t first = 0; first < widths_.size(); ++first) {
      for (size_t second = first; second < widths_.size(); ++second) {
        if (!(cost(first, second) < least)) continue;
        least = cost(first, second);
        best = Widths{widths_[first], widths_[second]};
      }
    }
    return best;
  }

private:
  double search_cost() const { return kSearch * static_cast<double>(n_); }

  // A query with too many rows left is multiplied with everything once more (k nearest only).
  double exact_cost(const Left& left, bool cascade) const {
    const double room = static_cast<double>(candidate_room(n_, search_.k)) * (cascade ? 2.5 : 0.87);
    double sum = 0;
    for (const double rows : left) {
      const bool again = search_.k > 0 && rows > room;
      sum += (again ? static_cast<double>(n_) : 0) * static_cast<double>(d_) +
             (again ? room : rows) * static_cast<double>(d_) * kExact;
    }
    return sum / static_cast<double>(left.size());
  }

  // limit_[q]: the score that the answer of query q reaches.
  void find_limits(const SampleSide& query, const SampleSide& base, const std::vector<float>& dots) {
    const auto share = static_cast<double>(base.size()) / static_cast<double>(n_);
    std::vector<double> scores;
    for (int64_t q = 0; q < query.size(); ++q) {
      if (search_.k == 0) {
        limit_.push_back(filter_.exact_score(query.index[q], search_.bound));
        continue;
      }
      scores.clear();
      for (int64_t b = 0; b < base.size(); ++b) {
        if (filter_.self() && query.index[q] == base.index[b]) continue;
        // Never NaN, which has no order: rows may have changed during the call.
        const double score = filter_.base().half[base.index[b]] - dots[q * base.size() + b];
        scores.push_back(std::min(std::numeric_limits<double>::infinity(), score));
      }
      const auto last = static_cast<int64_t>(scores.size()) - 1;
      const int64_t rank = std::clamp<int64_t>(std::llround(share * static_cast<double>(search_.k)) - 1, 0, last);
      std::nth_element(scores.begin(), scores.begin() + rank, scores.end());
      limit_.push_back(scores[rank]);
    }
  }

  Left count(const SampleSide& query, const SampleSide& base, const std::vector<float>& dots, double relative,
             double margins, bool rests) const {
    const auto share = static_cast<double>(base.size()) / static_cast<double>(n_);
    Left left;
    for (int64_t q = 0; q < query.size(); ++q) {
      const double limit = limit_[q] + margins * filter_.margin_of(query.index[q], relative);
      const double rest = rests ? std::sqrt(std::max(0.0, query.left[q])) : 0.0;
      int64_t within = 0;
      for (int64_t b = 0; b < base.size(); ++b) {
        const double other = rests ? std::sqrt(std::max(0.0, base.left[b])) : 0.0;
        within += filter_.base().half[base.index[b]] - dots[q * base.size() + b] - rest * other <= limit;
      }
      left.push_back(static_cast<double>(within) / share);
    }
    return left;
  }

  const PairFilter& filter_;
  Search search_;
  int64_t n_, queries_, d_;
  double pairs_;  // products per query
  std::vector<double> limit_;
  std::vector<int64_t> widths_;
  std::vector<Left> left_;  // by width
  Left full_;
};

bool usable(const PairFilter& filter, const Axes& axes, int64_t width) {
  return prefix_slack(filter.factor_rounding(), axes, width) < std::numeric_limits<double>::infinity();
}

}  // namespace

std::optional<Cascade> choose_cascade(const PairFilter& filter, Search search, int64_t width) {
  const int64_t n = filter.base().rows.size(0), queries = filter.query().rows.size(0), d = filter.base().rows.size(1);
  if (width < 0 || n == 0 || queries == 0 || !filter.bounded()) return std::nullopt;
  const auto* rows = filter.base().rows.const_data_ptr<float>();
  if (width > 0) {
    const Widths widths{std::min(width, d), std::min(2 * width, d)};
    const Axes axes = principal_axes(rows, n, d, 4 * widths.second, widths.second);
    if (!usable(filter, axes, widths.second)) return std::nullopt;
    return std::optional<Cascade>(std::in_place, filter, axes, widths);
  }
  // The axes may cost a twenty-fourth of the whole search: 20 d w^2 with 4 w rows.
  const double pairs = static_cast<double>(n) * static_cast<double>(queries) / (filter.self() ? 2 : 1);
  if (pairs * (static_cast<double>(d) + kSearch) < kLeastWork || d < kLeastColumns) return std::nullopt;
  const auto affordable = static_cast<int64_t>(std::sqrt(pairs / 24 / 20));
  const int64_t most = std::min(affordable, d / 2);
  const int64_t widest = *(std::upper_bound(std::begin(kPrefixWidths) + 1, std::end(kPrefixWidths), most) - 1);
  if (widest > most || most < std::min<int64_t>(d / 4, kPilotWidth) || !has_structure(filter, n, d))
    return std::nullopt;
  const Axes axes = principal_axes(rows, n, d, kSamples * widest, widest);
  if (!usable(filter, axes, widest)) return std::nullopt;
  const std::optional<Widths> widths = Prediction(filter, search, axes).best();
  if (!widths) return std::nullopt;
  return std::optional<Cascade>(std::in_place, filter, axes, *widths);
}

}  // namespace ise_fast
