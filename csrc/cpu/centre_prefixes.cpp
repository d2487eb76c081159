#include "centre_prefixes.h"

#include <cmath>
#include <limits>

namespace ise_fast {
namespace {

// In multiply-adds of the library's product.
constexpr double kLeastCentreWork = 1e8;  // of all pairs; less is left alone
constexpr double kScattered = 3;          // of a pair compared alone, a term
constexpr double kIterations = 8;         // that the rotation of the rows is for
constexpr double kAxes = 20;              // d w^2 times this: finding w axes
constexpr double kShare = 8;              // of the product of one iteration may go into that
constexpr int64_t kSample = 128;          // rows that predict

bool in_range(MeasuredRows of) {
  return std::all_of(of.length, of.length + of.rows.rows, [](double length) { return length < 0x1p20; });
}

double squared_length(const float* row, int64_t width) {
  double sum = 0;
  for (int64_t c = 0; c < width; ++c) sum += static_cast<double>(row[c]) * row[c];
  return sum;
}

double longest(MeasuredRows of) {
  return *std::max_element(of.length, of.length + of.rows.rows);
}

// [rows, width] of all rows.
std::vector<float> prefixes(Matrix<const float> x, const Axes& axes) {
  std::vector<float> out(x.rows * axes.width);
  for_prefixes(x, axes, axes.width,
               [&](int64_t i, const float* prefix) { std::copy_n(prefix, axes.width, &out[i * axes.width]); });
  return out;
}

// What a sample of rows says of a width.
class CentrePrediction {
public:
  CentrePrediction(MeasuredRows x, MeasuredRows centres, const Axes& axes) : centres_(centres), axes_(axes) {
    const int64_t n = x.rows.rows, d = axes.d, k = centres.rows.rows;
    const int64_t count = std::min(n, kSample);
    std::vector<float> rows(count * d);
    for (int64_t s = 0; s < count; ++s) {
      const int64_t i = s * n / count;
      std::copy_n(x.rows.data + i * d, d, rows.data() + s * d);
      length_.push_back(x.length[i]);
    }
    dots_.resize(count * k);
    const Matrix<const float> sample{rows.data(), count, d, d};
    multiply<float>({dots_.data(), count, k, k}, sample, centres.rows.transposed());
    for (int64_t s = 0; s < count; ++s) {
      double least = std::numeric_limits<double>::infinity();
      for (int64_t c = 0; c < k; ++c) least = std::min(least, squared(s, c, dots_[s * k + c]));
      own_.push_back(least);
    }
    row_ = prefixes(sample, axes);
    centre_ = prefixes(centres.rows, axes);
  }

  // Multiply-adds for a pair.
  double cost(int64_t width, double slack) {
    const auto count = static_cast<int64_t>(length_.size());
    const int64_t k = centres_.rows.rows, w = axes_.width;
    const std::vector<float> row = rests(row_, length_.data(), count, width, slack);
    const std::vector<float> centre = rests(centre_, centres_.length, k, width, slack);
    multiply<float>({dots_.data(), count, k, k}, {row_.data(), count, width, w},
                    Matrix<const float>{centre_.data(), k, width, w}.transposed());
    int64_t open = 0;
    for (int64_t s = 0; s < count; ++s) {
      for (int64_t c = 0; c < k; ++c) open += squared(s, c, dots_[s * k + c] + row[s] * centre[c]) <= own_[s];
    }
    const auto d = static_cast<double>(axes_.d), columns = static_cast<double>(width + 1);
    return columns * (1 + d / (kIterations * static_cast<double>(k))) +
           kScattered * d * static_cast<double>(open) / static_cast<double>(count * k);
  }

private:
  double squared(int64_t s, int64_t c, double dot) const {
    return length_[s] * length_[s] + centres_.length[c] * centres_.length[c] - 2 * dot;
  }

  std::vector<float> rests(const std::vector<float>& prefix, const double* length, int64_t count, int64_t width,
                           double slack) const {
    std::vector<float> rest(count);
    for (int64_t i = 0; i < count; ++i) {
      rest[i] = rest_length(length[i], squared_length(prefix.data() + i * axes_.width, width), slack, axes_.skew);
    }
    return rest;
  }

  MeasuredRows centres_;
  const Axes& axes_;
  std::vector<double> length_, own_;
  std::vector<float> dots_, row_, centre_;
};

}  // namespace

std::unique_ptr<CentrePrefixes> CentrePrefixes::choose(MeasuredRows x, MeasuredRows centres) {
  const int64_t n = x.rows.rows, d = x.rows.columns, k = centres.rows.rows;
  const double pairs = static_cast<double>(n) * static_cast<double>(k);
  if (pairs * static_cast<double>(d) < kLeastCentreWork || !in_range(x) || !in_range(centres) ||
      !(longest(x) > 0x1p-20)) {
    return nullptr;
  }
  const int64_t most = std::min(static_cast<int64_t>(std::sqrt(pairs / kShare / kAxes)), d / 4);
  const auto* past = std::upper_bound(std::begin(kPrefixWidths), std::end(kPrefixWidths), most);
  if (past == std::begin(kPrefixWidths)) return nullptr;
  const Axes axes = principal_axes(x.rows.data, n, d, 3 * past[-1], past[-1]);
  CentrePrediction predicted(x, centres, axes);
  int64_t best = 0;
  double least = static_cast<double>(d) / 2;
  for (const auto* width = std::begin(kPrefixWidths); width < past; ++width) {
    const double slack = prefix_slack(factor_rounding(), axes, *width);
    if (!std::isfinite(slack)) continue;
    const double cost = predicted.cost(*width, slack);
    if (!(cost < least)) continue;
    least = cost;
    best = *width;
  }
  if (best == 0) return nullptr;
  std::unique_ptr<CentrePrefixes> chosen(new CentrePrefixes(axes, best, x));
  chosen->move(centres);
  return chosen;
}

CentrePrefixes::CentrePrefixes(const Axes& axes, int64_t width, MeasuredRows x)
    : axes_(axes), width_(width), e_(prefix_slack(factor_rounding(), axes, width)), row_(rotated(x)) {}

void CentrePrefixes::move(MeasuredRows centres) {
  centre_ = rotated(centres);
}

void CentrePrefixes::products(int64_t begin, int64_t rows, float* out) const {
  const int64_t stride = columns(), k = static_cast<int64_t>(centre_.size()) / stride;
  multiply_tile<float>({out, rows, k, k}, {row_.data() + begin * stride, rows, stride, stride},
                       Matrix<const float>{centre_.data(), k, stride, stride}.transposed(), false);
}

std::vector<float> CentrePrefixes::rotated(MeasuredRows of) const {
  const int64_t stride = columns();
  std::vector<float> out(of.rows.rows * stride);
  for_prefixes(of.rows, axes_, width_, [&](int64_t i, const float* prefix) {
    float* const to = out.data() + i * stride;
    to[0] = rest_length(of.length[i], squared_length(prefix, width_), e_, axes_.skew);
    std::copy_n(prefix, width_, to + 1);
  });
  return out;
}

}  // namespace ise_fast
