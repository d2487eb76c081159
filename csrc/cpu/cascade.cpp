#include "cascade.h"

#include <cmath>
#include <limits>

#include "clones.h"
#include "tensors.h"

namespace ise_fast {
namespace {

constexpr int kPrefixLanes = 32;

// Products of a query and kRows rows; the rows `next` are fetched meanwhile.
template <int kRows>
[[gnu::always_inline]] inline void add_lanes(const float* query, const float* const (&row)[kRows],
                                             const float* const (&next)[kRows], int64_t width, float* out) {
  float sum[kRows][kPrefixLanes] = {};
  int64_t c = 0;
  for (; c + kPrefixLanes <= width; c += kPrefixLanes) {
    for (int r = 0; r < kRows; ++r) {
      for (int64_t line = c; line < c + kPrefixLanes; line += 16) __builtin_prefetch(next[r] + line);
    }
    for (int r = 0; r < kRows; ++r) {
      for (int lane = 0; lane < kPrefixLanes; ++lane) sum[r][lane] += query[c + lane] * row[r][c + lane];
    }
  }
  for (int lane = 0; c < width; ++c, ++lane) {
    for (int r = 0; r < kRows; ++r) sum[r][lane] += query[c] * row[r][c];
  }
  for (int r = 0; r < kRows; ++r) {
    for (int apart = kPrefixLanes / 2; apart > 0; apart /= 2) {
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

}  // namespace

Cascade::Cascade(const PairFilter& filter, const Axes& axes, Widths widths) : filter_(filter), widths_(widths) {
  base_ = rotated(filter.base(), axes);
  if (!filter.self()) query_ = rotated(filter.query(), axes);
}

Cascade::Side Cascade::rotated(const FilterRows& from, const Axes& axes) const {
  const int64_t n = from.rows.size(0), width = widths_.second, stride = width + 1;
  Side side{new_tensor(from.rows, {n, stride}), std::vector<float>(n)};
  auto* out = side.rows.mutable_data_ptr<float>();
  const double first_slack = prefix_slack(filter_.factor_rounding(), axes, widths_.first);
  const double second_slack = prefix_slack(filter_.factor_rounding(), axes, width);
  for_prefixes(row_matrix(from.rows), axes, width, [&](int64_t i, const float* prefix) {
    const double length = filter_.filter_length(from, i);
    double squared = 0;
    const auto add = [&](int64_t begin, int64_t end) {
      for (int64_t c = begin; c < end; ++c) squared += static_cast<double>(prefix[c]) * prefix[c];
    };
    add(0, widths_.first);
    out[i * stride] = rest_length(length, squared, first_slack, axes.skew);
    add(widths_.first, width);
    side.rest[i] = rest_length(length, squared, second_slack, axes.skew);
    std::copy_n(prefix, width, out + i * stride + 1);
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
