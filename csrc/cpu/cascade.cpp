#include "cascade.h"

#include <cmath>
#include <limits>

#include "clones.h"
#include "tensors.h"

namespace ise_fast {
namespace {

constexpr double kUnit = 0x1p-24;
constexpr int64_t kChunk = 128;   // columns of d that one product adds up
constexpr int64_t kHeight = 128;  // rows rotated at a time
constexpr int kLanes = 32;

// Products of a query and kRows rows; the rows `next` are fetched meanwhile.
template <int kRows>
[[gnu::always_inline]] inline void add_lanes(const float* query, const float* const (&row)[kRows],
                                             const float* const (&next)[kRows], int64_t width, float* out) {
  float sum[kRows][kLanes] = {};
  int64_t c = 0;
  for (; c + kLanes <= width; c += kLanes) {
    for (int r = 0; r < kRows; ++r) {
      for (int64_t line = c; line < c + kLanes; line += 16) __builtin_prefetch(next[r] + line);
    }
    for (int r = 0; r < kRows; ++r) {
      for (int lane = 0; lane < kLanes; ++lane) sum[r][lane] += query[c + lane] * row[r][c + lane];
    }
  }
  for (int lane = 0; c < width; ++c, ++lane) {
    for (int r = 0; r < kRows; ++r) sum[r][lane] += query[c] * row[r][c];
  }
  for (int r = 0; r < kRows; ++r) {
    for (int apart = kLanes / 2; apart > 0; apart /= 2) {
      for (int lane = 0; lane < apart; ++lane) sum[r][lane] += sum[r][lane + apart];
    }
    out[r] = sum[r][0];
  }
}

// out[r] = query . rows[index[r]], in float32 and an order of its own.
ISE_CLONES void prefix_dots(const float* query, const float* rows, int64_t stride, int64_t width, const int32_t* index,
                            int64_t n, float* out) {
  const auto at = [&](int64_t r) { return rows + index[std::min(r, n - 1)] * stride; };
  int64_t r = 0;
  for (; r + 2 <= n; r += 2) add_lanes<2>(query, {at(r), at(r + 1)}, {at(r + 2), at(r + 3)}, width, out + r);
  if (r < n) add_lanes<1>(query, {at(r)}, {at(r)}, width, out + r);
}

// e above.
double prefix_error(const PairFilter& filter, const Axes& axes, int64_t width) {
  const auto terms = static_cast<double>(std::min(axes.d, kChunk) + (axes.d + kChunk - 1) / kChunk);
  const double frobenius = std::sqrt(static_cast<double>(width) * (1 + axes.skew));
  return (1.01 * terms * kUnit + 2.02 * filter.factor_rounding()) * frobenius + 2.02 * kUnit;
}

// t above.
float rest_length(double length, double prefix_squared, double slack, double skew) {
  const double squared = length * length * (1 + slack) - prefix_squared / (1 + skew);
  return squared > 0 ? above(std::sqrt(squared)) : 0.0f;
}

}  // namespace

double prefix_slack(const PairFilter& filter, const Axes& axes, int64_t width) {
  const double error = prefix_error(filter, axes, width);
  if (!(error < 0.05 && axes.skew < 0.05)) return std::numeric_limits<double>::infinity();
  const double product = static_cast<double>(width + 1) * kUnit + 2 * filter.factor_rounding();
  return 1.3 * (4 * error + 2 * axes.skew + product) + 16 * kUnit;
}

Cascade::Cascade(const PairFilter& filter, const Axes& axes, Widths widths) : filter_(filter), widths_(widths) {
  base_ = rotated(filter.base(), axes);
  if (!filter.self()) query_ = rotated(filter.query(), axes);
}

Cascade::Side Cascade::rotated(const FilterRows& from, const Axes& axes) const {
  const int64_t n = from.rows.size(0), d = axes.d, width = widths_.second, stride = width + 1;
  Side side{new_tensor(from.rows, {n, stride}), std::vector<float>(n)};
  const Matrix<const float> x{from.rows.const_data_ptr<float>(), n, d, d};
  const Matrix<const float> q{axes.q.data(), d, axes.width, axes.width};
  auto* out = side.rows.mutable_data_ptr<float>();
  const double first_slack = prefix_slack(filter_, axes, widths_.first);
  const double second_slack = prefix_slack(filter_, axes, width);
  parallel_tasks((n + kHeight - 1) / kHeight, [&](int64_t task) {
    const int64_t row = task * kHeight, rows = std::min(kHeight, n - row);
    std::vector<float> part(rows * width), sum(rows * width);
    for (int64_t c = 0; c < d; c += kChunk) {
      const int64_t columns = std::min(kChunk, d - c);
      multiply_tile(Matrix<float>{part.data(), rows, width, width}, x.block(row, rows, c, columns),
                    q.block(c, columns, 0, width), false);
      for (int64_t e = 0; e < rows * width; ++e) sum[e] += part[e];
    }
    for (int64_t r = 0; r < rows; ++r) {
      const float* prefix = sum.data() + r * width;
      const double length = filter_.filter_length(from, row + r);
      double squared = 0;
      const auto add = [&](int64_t begin, int64_t end) {
        for (int64_t c = begin; c < end; ++c) squared += static_cast<double>(prefix[c]) * prefix[c];
      };
      add(0, widths_.first);
      out[(row + r) * stride] = rest_length(length, squared, first_slack, axes.skew);
      add(widths_.first, width);
      side.rest[row + r] = rest_length(length, squared, second_slack, axes.skew);
      std::copy_n(prefix, width, out + (row + r) * stride + 1);
    }
  });
  return side;
}

Matrix<const float> Cascade::leading(const Side& side) const {
  return {side.rows.const_data_ptr<float>(), side.rows.size(0), widths_.first + 1, side.rows.size(1)};
}

void Cascade::second_scores(int64_t i, const int32_t* index, int64_t n, float* low) const {
  const Side& from = filter_.self() ? base_ : query_;
  const int64_t stride = widths_.second + 1;
  prefix_dots(from.rows.const_data_ptr<float>() + i * stride + 1, base_.rows.const_data_ptr<float>() + 1, stride,
              widths_.second, index, n, low);
  const float* half = filter_.base().half.data();
  for (int64_t r = 0; r < n; ++r) low[r] = half[index[r]] - low[r] - from.rest[i] * base_.rest[index[r]];
}

}  // namespace ise_fast
