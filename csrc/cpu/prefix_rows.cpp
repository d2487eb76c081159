#include "prefix_rows.h"

#include <cmath>
#include <limits>

#include "pair_filter.h"

namespace ise_fast {
namespace {

constexpr double kUnit = 0x1p-24;

// e of the header.
double prefix_error(double factor_rounding, const Axes& axes, int64_t width) {
  const auto terms = static_cast<double>(std::min(axes.d, kPrefixChunk) + (axes.d + kPrefixChunk - 1) / kPrefixChunk);
  const double frobenius = std::sqrt(static_cast<double>(width) * (1 + axes.skew));
  return (1.01 * terms * kUnit + 2.02 * factor_rounding) * frobenius + 2.02 * kUnit;
}

}  // namespace

double prefix_slack(double factor_rounding, const Axes& axes, int64_t width) {
  const double error = prefix_error(factor_rounding, axes, width);
  if (!(error < 0.05 && axes.skew < 0.05)) return std::numeric_limits<double>::infinity();
  const double product = static_cast<double>(width + 1) * kUnit + 2 * factor_rounding;
  return 1.3 * (4 * error + 2 * axes.skew + product) + 16 * kUnit;
}

float rest_length(double length, double prefix_squared, double slack, double skew) {
  const double squared = length * length * (1 + slack) - prefix_squared / (1 + skew);
  return squared > 0 ? above(std::sqrt(squared)) : 0.0f;
}

}  // namespace ise_fast
