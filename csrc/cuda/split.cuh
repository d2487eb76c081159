// Matrix products of float32 accuracy on tensor cores, which take float16.
//
// Each row is scaled by a power of two, so that its largest number lies in [2^14, 2^15), and split into two float16
// numbers that together keep 22 bits: x = high + low. Then
//   a.b = a_high.b_high + a_low.b_high + a_high.b_low,
// three products by the library, added up in float32. What is left out and what was rounded is below
// 3 x 2^-22 ||a|| ||b||; the rest of the error is that of any float32 sum. On an H100 three such products take a
// quarter of the time of one in float32, and no setting of the user reaches them.
#pragma once

#include <cuda_fp16.h>

#include <cmath>
#include <optional>

#include "gemm.h"
#include "head.cuh"

namespace ise_fast {
namespace {

// A block a row: x (with a factor for each column, or null) = unit x (high + low). Powers of two, so nothing is rounded
// but the halves.
__global__ void split_rows(const float* x, const float* column_unit, __half* high, __half* low, float* unit,
                           int64_t columns) {
  __shared__ float scratch[kHeadWarps];
  const int64_t row = static_cast<int64_t>(blockIdx.x) * columns;
  const auto number = [&](int64_t c) { return column_unit ? x[row + c] * column_unit[c] : x[row + c]; };
  float largest = 0;
  for (int64_t c = threadIdx.x; c < columns; c += kHeadThreads) largest = Max{}(largest, fabsf(number(c)));
  largest = block_reduce(largest, Max{}, 0.0f, scratch);
  const bool scaled = 0 < largest && largest < INFINITY;  // else NaN and infinity go through as they are
  const int exponent = scaled ? 14 - ilogbf(largest) : 0;
  const float by = ldexpf(1, exponent < 126 ? exponent : 126);  // both it and 1 / by are float32 numbers
  for (int64_t c = threadIdx.x; c < columns; c += kHeadThreads) {
    const float value = number(c) * by;
    const __half near = __float2half_rn(value);
    high[row + c] = near;
    low[row + c] = __float2half_rn(value - __half2float(near));
  }
  if (threadIdx.x == 0) unit[blockIdx.x] = 1 / by;
}

// What the products of scaled rows stand for; a thread a number. column_unit may be null.
__global__ void apply_units(float* products, const float* row_unit, const float* column_unit, int64_t columns) {
  const auto [i, c] = cell_of_thread(columns);
  if (c >= columns) return;
  const float product = products[i * columns + c] * row_unit[i];
  products[i * columns + c] = column_unit ? product * column_unit[c] : product;
}

// Rows that are multiplied: split, or as they are.
struct Factor {
  Tensor rows;
  std::optional<Tensor> high, low, unit;

  // |product - exact one| <= this x ||a|| ||b|| for a factor that is split or not as this one, as product_error: tensor
  // cores truncate, nobody documents how, so what is known is taken twice (pair_filter.cuh).
  double error() const {
    const int64_t d = rows.size(1);
    return high ? static_cast<double>(4 * d + 32) * 0x1p-24 * 1.01 : product_error(d);
  }

  Factor part(int64_t begin, int64_t count) const {
    const auto cut = [&](const Tensor& tensor) {
      Tensor all = tensor;
      return torch::stable::narrow(all, 0, begin, count);
    };
    if (!high) return {cut(rows), {}, {}, {}};
    return {cut(rows), cut(*high), cut(*low), cut(*unit)};
  }
};

// Whether there is room for two halves of all centroids: 512 MB.
inline bool can_split(const Tensor& centroids) {
  return centroids.numel() <= at_once(int64_t{1} << 27);
}

// `columns`: the factor that this one's columns meet in `multiply`; its units are taken in here.
inline Factor factor_of(const Tensor& rows, bool split, const Factor* columns = nullptr) {
  if (!split || rows.numel() == 0) return {rows, {}, {}, {}};
  Factor out{rows, device_empty(rows, rows.sizes(), ScalarType::Half),
             device_empty(rows, rows.sizes(), ScalarType::Half), device_empty(rows, {rows.size(0)}, ScalarType::Float)};
  LAUNCH(split_rows, static_cast<unsigned>(rows.size(0)), kHeadThreads, 0, current_stream(rows),
         rows.const_data_ptr<float>(), columns ? columns->unit->const_data_ptr<float>() : nullptr,
         static_cast<__half*>(out.high->mutable_data_ptr()), static_cast<__half*>(out.low->mutable_data_ptr()),
         out.unit->mutable_data_ptr<float>(), rows.size(1));
  return out;
}

inline void multiply_parts(Tensor& out, const Factor& a, const Tensor& b_high, const Tensor& b_low,
                           const float* column_unit) {
  matmul(out, *a.high, b_high);
  matmul(out, *a.low, b_high, Then::kAdd);
  matmul(out, *a.high, b_low, Then::kAdd);
  LAUNCH(apply_units, cell_blocks(out.size(0), out.size(1)), kHeadThreads, 0, current_stream(out),
         out.mutable_data_ptr<float>(), a.unit->const_data_ptr<float>(), column_unit, out.size(1));
}

// out [m, n], contiguous, = a [m, d] b^T [d, n].
inline void multiply_transposed(Tensor& out, const Factor& a, const Factor& b) {
  const auto turned = [](const Tensor& tensor) { return torch::stable::transpose(tensor, 0, 1); };
  if (out.numel() == 0) return;
  if (!a.high || !b.high) return matmul(out, a.rows, turned(b.rows));
  multiply_parts(out, a, turned(*b.high), turned(*b.low), b.unit->const_data_ptr<float>());
}

// out [m, d], contiguous, = a [m, n] b [n, d]; a was split for the columns of b.
inline void multiply(Tensor& out, const Factor& a, const Factor& b) {
  if (out.numel() == 0) return;
  if (!a.high || !b.high) return matmul(out, a.rows, b.rows);
  multiply_parts(out, a, *b.high, *b.low, nullptr);
}

}  // namespace
}  // namespace ise_fast
