// Lower bounds of the scores of pair_filter.cuh from a product of few columns: rows along their principal axes, as in
// csrc/cpu/cascade.h.
//
// Q [d, w] has no singular value above 1, p = Q^T x is the prefix of a row. Then M = 1 - Q Q^T has no negative
// eigenvalue, so |q.b - p_q.p_b| = |q^T M b| <= t_q t_b with t^2 = x^T M x = ||x||^2 - ||p||^2 (Cauchy-Schwarz), and
//   low = ||b||^2 / 2 - (p_q.p_b + t_q t_b)
// is never above the score. With t as one more column `low` is a product of w + 1 columns.
//
// What is multiplied is p^, p computed in float32 and rounded to float16. e >= ||p - p^|| is known for each row: a
// bound of the error of the float32 products, and what rounding took, measured. With ||p^|| - e for ||p||, t is no
// shorter than it should be, and score_margin holds the rest, with e for r of the rounded rows and w + 1 for d: t makes
// a row longer by at most a thousandth and e, which its factors of 1.02 and 4 hold.
#pragma once

#include "axes.cuh"

namespace ise_fast {
namespace {

constexpr int64_t kTurnedColumns = 128;      // of d that one product adds up
constexpr int64_t kTurnedNumbers = 1 << 26;  // of scaled rows that are rotated at once

// Rows of one side as they are multiplied, and what takes the place of FilterSide's.
struct Prefix {
  Tensor rows;  // [n, 1 + width] f16: t, then p^, of rows of lengths in [1, 2)
  Tensor residual, extremes;

  template <class T>
  FilterRows<T> of(FilterRows<T> full) const {
    full.residual = residual.const_data_ptr<double>();
    full.extremes = reinterpret_cast<const RowExtremes*>(extremes.const_data_ptr<int64_t>());
    full.columns = rows.size(1);
    return full;
  }
};

// Rows from `first` on with lengths in [1, 2), in float32; a warp a row.
template <class T>
__global__ void scale_rows(FilterRows<T> rows, float* out, int64_t first, int64_t count) {
  const int64_t r = static_cast<int64_t>(blockIdx.x) * kFilterWarps + threadIdx.x / kWarpSize, d = rows.d;
  if (r >= count) return;
  const double by = power_below(sqrt(rows.squared[first + r]));
  const T* from = rows.original + (first + r) * d;
  for (int64_t c = threadIdx.x % kWarpSize; c < d; c += kWarpSize) {
    out[r * d + c] = static_cast<float>(static_cast<double>(from[c]) * by);
  }
}

// The prefixes of rows from `first` on; a warp a row. along: their products with the axes, wrong by at most `error` of
// the row's length.
template <class T>
__global__ void round_prefix(const float* along, FilterRows<T> rows, FilterUnits units,
                             const unsigned long long* largest, double error, __half* prefix, double* residual,
                             RowExtremes* extremes, int64_t first, int64_t count, int64_t width) {
  const int lane = threadIdx.x % kWarpSize;
  const int64_t r = static_cast<int64_t>(blockIdx.x) * kFilterWarps + threadIdx.x / kWarpSize;
  if (r >= count) return;
  const double skew = bits_double(*largest);
  const double shorten = !(skew < 1e6) ? 0.0 : skew > 1 ? (1 - 0x1p-40) / sqrt(skew) : 1.0;
  __half* out = prefix + (first + r) * (width + 1);
  double off = 0, squared = 0;
  for (int64_t c = lane; c < width; c += kWarpSize) {
    const double exact = shorten > 0 ? along[r * width + c] * shorten : 0.0;
    const __half near = __float2half_rn(static_cast<float>(exact));
    const double kept = static_cast<double>(__half2float(near));
    out[1 + c] = near;
    off += (exact - kept) * (exact - kept);
    squared += kept * kept;
  }
  off = warp_sum(off);
  squared = warp_sum(squared);
  if (lane != 0) return;
  const double length = sqrt(rows.squared[first + r]), by = power_below(length), scaled = length * by;
  const double e = sqrt(off) * (1 + 0x1p-40) + error * scaled, seen = Max{}(sqrt(squared) - e, 0.0);
  const double left = scaled * scaled * (1 + 0x1p-40) - seen * seen;
  // Rounded up: float16 takes at most 2^-11 of it, or 2^-25.
  const double rest = sqrt(Max{}(left, 0.0)) * (1 + 0x1p-10) + 0x1p-24;
  out[0] = __float2half_rn(static_cast<float>(rest));
  residual[first + r] = e * score_unit(units, length, by);
  raise(&extremes->residual, double_bits(residual[first + r]));
}

// The prefixes of all rows of a side.
template <class T>
Prefix make_prefix(const FilterSide& side, const Axes& axes, const FilterUnits& units, cudaStream_t stream) {
  const Tensor& like = side.original;
  const FilterRows<T> rows = side.template rows<T>();
  const int64_t n = rows.n, d = rows.d, width = axes.rows.size(0);
  Prefix out{new_rounded(like, n, width + 1, stream), device_empty(like, {n}, ScalarType::Double),
             device_zeros(like, {sizeof(RowExtremes) / 8}, ScalarType::Long)};
  if (n == 0) return out;
  const int64_t chunks = (d + kTurnedColumns - 1) / kTurnedColumns;
  // Of each component, times ||Q||_F: the products, their sum, and x in float32 where it is float64.
  const double error = 1.01 *
                       (product_error(std::min(d, kTurnedColumns)) + static_cast<double>(2 * chunks + 2) * 0x1p-24) *
                       std::sqrt(static_cast<double>(width));
  const int64_t height = std::clamp<int64_t>(at_once(kTurnedNumbers) / d, 1, n);
  Tensor scaled = device_empty(like, {height, d}, ScalarType::Float);
  Tensor along = device_empty(like, {height, width}, ScalarType::Float);
  Tensor turn = axes.rows;
  for (int64_t first = 0; first < n; first += height) {
    const int64_t count = std::min(height, n - first);
    LAUNCH(scale_rows<T>, warps_grid(count), kFilterThreads, 0, stream, rows, scaled.mutable_data_ptr<float>(), first,
           count);
    Tensor part = torch::stable::narrow(along, 0, 0, count), from = torch::stable::narrow(scaled, 0, 0, count);
    for (int64_t c = 0; c < d; c += kTurnedColumns) {
      const int64_t columns = std::min(kTurnedColumns, d - c);
      matmul(part, torch::stable::narrow(from, 1, c, columns), turned(torch::stable::narrow(turn, 1, c, columns)),
             c == 0 ? Then::kStore : Then::kAdd);
    }
    LAUNCH(round_prefix<T>, warps_grid(count), kFilterThreads, 0, stream, along.const_data_ptr<float>(), rows, units,
           reinterpret_cast<const unsigned long long*>(axes.largest.const_data_ptr<int64_t>()), error,
           static_cast<__half*>(out.rows.mutable_data_ptr()), out.residual.mutable_data_ptr<double>(),
           reinterpret_cast<RowExtremes*>(out.extremes.mutable_data_ptr<int64_t>()), first, count, width);
  }
  return out;
}

}  // namespace
}  // namespace ise_fast
