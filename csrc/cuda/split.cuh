// Matrix products of float32 rows on tensor cores, which take float16.
//
// Each row is scaled by a power of two, so that its largest number lies in [2^14, 2^15), and split into two float16
// numbers that together keep 22 bits: x = high + low. Then
//   a.b = a_high.b_high + a_low.b_high + a_high.b_low,
// three products by the library, added up in float32. What is left out and what was rounded is below
// 3 x 2^-22 ||a|| ||b||. On an H100 three such products take a quarter of the time of one in float32, and no setting of
// the user reaches them.
//
// Tensor cores cut off what does not fit beside the sum so far, always towards zero: a sum of 2,048 positive terms came
// out 213 x 2^-24 of itself too small on an H100, one of 256 terms 21 x 2^-24. So they add up kDepth terms of the large
// product at most; the sums of these pieces are added in float32, rounded to nearest. The two small products are 2^-11
// of the large one, and what is cut off of them is nothing.
//
// Where a product only tells which pairs need an exact look, a_high.b_high is enough: high is wrong by at most 2^-11
// of a row's length, so the product by 2^-10 ||a|| ||b||, which is no more than what the sum of 2,048 products may err.
//
// Where the features of a loss are float16 or bfloat16 (mixed precision), all factors are rounded to their type, once,
// and a product is one product: what rounding costs, 2^-11 or 2^-8 of each number, is more than what sums lose.
//
// The parts have whole sectors of rows and of columns (gemm.h): zeros fill them up.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "gemm.h"
#include "head.cuh"

namespace ise_fast {
namespace {

constexpr int64_t kDepth = 512;

// How rows go into a product: as they are, in float32; rounded to a short type, within its range; scaled and rounded to
// float16, for a filter; with the accuracy of float32.
enum class Parts { kNone, kHalf, kBFloat16, kHigh, kBoth };

// Of factors in mixed precision.
inline bool is_rounded(Parts parts) {
  return parts == Parts::kHalf || parts == Parts::kBFloat16;
}

// How weights meet rows of such parts: they may be far below what float16 holds.
inline Parts weight_parts(Parts parts) {
  return parts == Parts::kHalf ? Parts::kHigh : parts;
}

// A thread a number.
template <class T>
__global__ void widen(const T* x, float* out, int64_t count) {
  const int64_t j = static_cast<int64_t>(blockIdx.x) * kHeadThreads + threadIdx.x;
  if (j < count) out[j] = static_cast<float>(x[j]);
}

// The same numbers in float32, one after the other.
inline Tensor in_float32(const Tensor& tensor) {
  const Tensor x = device_contiguous(tensor);
  if (x.scalar_type() == ScalarType::Float) return x;
  Tensor out = device_empty(x, x.sizes(), ScalarType::Float);
  if (x.numel() == 0) return out;
  const auto run = [&]<class T>(T) {
    LAUNCH(widen<T>, blocks_for(x.numel(), kHeadThreads), kHeadThreads, 0, current_stream(x),
           static_cast<const T*>(x.const_data_ptr()), out.mutable_data_ptr<float>(), x.numel());
  };
  x.scalar_type() == ScalarType::Half ? run(__half{}) : run(__nv_bfloat16{});
  return out;
}

// A block a row, and one for each row of zeros after the last: x (with a factor for each column, or null) = unit x
// (high + low). low may be null. Powers of two, so nothing is rounded but the parts.
__global__ void split_rows(const float* x, const float* column_unit, __half* high, __half* low, float* unit,
                           int64_t rows, int64_t columns, int64_t pitch) {
  __shared__ unsigned scratch[kHeadWarps];
  const int width = static_cast<int>(pitch), filled = blockIdx.x < rows ? static_cast<int>(columns) : 0;
  const float* const from = x + blockIdx.x * columns;
  __half *const to_high = high + blockIdx.x * pitch, *const to_low = low ? low + blockIdx.x * pitch : nullptr;
  const auto number = [&](int c) { return column_unit ? from[c] * column_unit[c] : from[c]; };
  unsigned bits = 0;
  for (int c = static_cast<int>(threadIdx.x); c < filled; c += kHeadThreads) {
    bits = Max{}(bits, bits_of_length(number(c)));
  }
  const float largest = length_of_bits(block_reduce(bits, Max{}, 0u, scratch));
  const bool scaled = 0 < largest && largest < INFINITY;  // else NaN and infinity go through as they are
  const int exponent = scaled ? 14 - ilogbf(largest) : 0;
  const float by = ldexpf(1, exponent < 126 ? exponent : 126);  // both it and 1 / by are float32 numbers
  for (int c = static_cast<int>(threadIdx.x); c < width; c += kHeadThreads) {
    const float value = c < filled ? number(c) * by : 0.0f;
    const __half near = __float2half_rn(value);
    to_high[c] = near;
    if (to_low) to_low[c] = __float2half_rn(value - __half2float(near));
  }
  if (threadIdx.x == 0 && filled > 0) unit[blockIdx.x] = 1 / by;
}

// The same blocks: x rounded to a short type as it is.
template <class T>
__global__ void shorten_rows(const float* x, T* out, int64_t rows, int64_t columns, int64_t pitch) {
  const int width = static_cast<int>(pitch), filled = blockIdx.x < rows ? static_cast<int>(columns) : 0;
  const float* const from = x + blockIdx.x * columns;
  T* const to = out + blockIdx.x * pitch;
  for (int c = static_cast<int>(threadIdx.x); c < width; c += kHeadThreads) {
    to[c] = static_cast<T>(c < filled ? from[c] : 0.0f);
  }
}

// What the sums of the products of scaled rows stand for; a thread a number. products: [pieces, rows, pitch], of which
// the first may be `out` itself. column_unit may be null.
__global__ void apply_units(const float* products, const float* row_unit, const float* column_unit, float* out,
                            int64_t rows, int64_t columns, int64_t pitch, int pieces) {
  const auto [i, c] = cell_of_thread(columns);
  if (c >= columns) return;
  float sum = products[i * pitch + c];
  for (int p = 1; p < pieces; ++p) sum += products[(p * rows + i) * pitch + c];
  const float product = sum * row_unit[i];
  out[i * columns + c] = column_unit ? product * column_unit[c] : product;
}

// Rows of `pitch` numbers to rows of `columns`; a thread a number.
__global__ void drop_padding(const float* padded, float* out, int64_t columns, int64_t pitch) {
  const auto [i, c] = cell_of_thread(columns);
  if (c < columns) out[i * columns + c] = padded[i * pitch + c];
}

// Rows that are multiplied. high and low: [whole sectors of rows, whole sectors of columns].
struct Factor {
  Tensor rows;
  std::optional<Tensor> high, low, unit;

  Parts parts() const {
    if (!high) return Parts::kNone;
    if (high->scalar_type() == ScalarType::BFloat16) return Parts::kBFloat16;
    return !unit ? Parts::kHalf : low ? Parts::kBoth : Parts::kHigh;
  }

  // |product - exact one| <= this x ||a|| ||b|| for a factor of the same parts as this one, as product_error: tensor
  // cores truncate, nobody documents how, so what is known is taken twice (pair_filter.cuh). The pieces of d terms are
  // added in float32, and the small products truncate as much of what is 2^-10. In mixed precision the features are of
  // the short type already, and one factor is rounded; see shortest_length() for what is below the range of float16.
  double error() const {
    const int64_t d = rows.size(1);
    if (!high) return product_error(d);
    const double rounding = parts() == Parts::kBFloat16 ? 0x1p-8 : 0x1p-10;
    if (!low) return (rounding + static_cast<double>(4 * d + 32) * 0x1p-24) * 1.01;
    return static_cast<double>(4 * std::min(d, kDepth) + d / kDepth + d / 256 + 32) * 0x1p-24 * 1.01;
  }

  // What error() takes a shorter row b to be as long as: numbers of float16 are wrong by up to 2^-25.
  double shortest_length() const {
    return parts() == Parts::kHalf ? std::sqrt(static_cast<double>(rows.size(1))) * 0x1p-14 : 0.0;
  }

  // Rows from `begin` on. A right factor of multiply_transposed begins at a whole sector, and so ends with one.
  Factor part(int64_t begin, int64_t count) const {
    const auto cut = [&](const Tensor& tensor, int64_t size) {
      Tensor all = tensor;
      return torch::stable::narrow(all, 0, begin, std::min(size, tensor.size(0) - begin));
    };
    Factor out{cut(rows, count), {}, {}, {}};
    if (high) out.high = cut(*high, whole_sectors(count));
    if (low) out.low = cut(*low, whole_sectors(count));
    if (unit) out.unit = cut(*unit, count);
    return out;
  }
};

// Whether there is room for two parts of all centroids: 512 MB.
inline bool can_split(const Tensor& centroids) {
  return centroids.numel() <= at_once(int64_t{1} << 27);
}

// Rows whose two parts take 256 MB, in whole sectors.
inline int64_t rows_split_at_once(int64_t d) {
  return whole_sectors(std::max<int64_t>(at_once(int64_t{1} << 26) / std::max<int64_t>(d, 1), 1));
}

// How the rows of a table go into a filter: their high parts may take a sixteenth of the device.
inline Parts filter_parts(const Tensor& table) {
  return table.numel() <= at_once(device_bytes() / 32) ? Parts::kHigh : Parts::kNone;
}

inline const float* units_of(const Factor& factor) {
  return factor.unit ? factor.unit->const_data_ptr<float>() : nullptr;
}

// `columns`: the factor that this one's columns meet in `multiply`; its units are taken in here.
inline Factor factor_of(const Tensor& rows, Parts parts, const Factor* columns = nullptr) {
  if (parts == Parts::kNone || rows.numel() == 0) return {rows, {}, {}, {}};
  const int64_t n = rows.size(0), d = rows.size(1), height = whole_sectors(n), pitch = whole_sectors(d);
  const ScalarType type = parts == Parts::kBFloat16 ? ScalarType::BFloat16 : ScalarType::Half;
  Factor out{rows, device_empty(rows, {height, pitch}, type), {}, {}};
  const float* const from = rows.const_data_ptr<float>();
  if (is_rounded(parts)) {
    const auto run = [&]<class T>(T) {
      LAUNCH(shorten_rows<T>, static_cast<unsigned>(height), kHeadThreads, 0, current_stream(rows), from,
             static_cast<T*>(out.high->mutable_data_ptr()), n, d, pitch);
    };
    parts == Parts::kHalf ? run(__half{}) : run(__nv_bfloat16{});
    return out;
  }
  if (parts == Parts::kBoth) out.low = device_empty(rows, {height, pitch}, type);
  out.unit = device_empty(rows, {n}, ScalarType::Float);
  LAUNCH(split_rows, static_cast<unsigned>(height), kHeadThreads, 0, current_stream(rows), from,
         columns ? units_of(*columns) : nullptr, static_cast<__half*>(out.high->mutable_data_ptr()),
         out.low ? static_cast<__half*>(out.low->mutable_data_ptr()) : nullptr, out.unit->mutable_data_ptr<float>(), n,
         d, pitch);
  return out;
}

// sums [pieces, m, n] f32, whose sum is a [m, d] b [d, n]: each kDepth of the d terms go to the next piece, and round
// again. `pieces` is at most d / kDepth, or 1.
inline void multiply_by_pieces(Tensor& sums, const Tensor& a, const Tensor& b) {
  using torch::stable::narrow;
  const int64_t d = a.size(1), pieces = sums.size(0), whole = d / kDepth;
  Tensor across = a, down = b, first = torch::stable::select(sums, 0, 0);
  const auto terms = [&](int64_t from, int64_t count) {
    return std::pair{narrow(across, 1, from, count), narrow(down, 0, from, count)};
  };
  for (int64_t p = 0; p < whole; p += pieces) {
    const auto [left, right] = terms(p * kDepth, kDepth);
    const int count = static_cast<int>(std::min(pieces, whole - p));
    matmul(first, left, right, p == 0 ? Then::kStore : Then::kAdd,
           {count, kDepth * a.stride(1), kDepth * b.stride(0), sums.stride(0)});
  }
  if (d % kDepth == 0) return;
  const auto [left, right] = terms(whole * kDepth, d % kDepth);
  matmul(first, left, right, whole == 0 ? Then::kStore : Then::kAdd);
}

// b_high has whole sectors of columns, and so has the product: where `out` has not, it is made beside it, and so are
// pieces of it, which take 16 MB at most: what is far below the second cache is added there, not in memory.
inline void multiply_parts(Tensor& out, const Factor& a, const Tensor& b_high, const std::optional<Tensor>& b_low,
                           const float* column_unit) {
  const int64_t rows = out.size(0), columns = out.size(1), pitch = whole_sectors(columns);
  const int64_t room = (int64_t{1} << 22) / (rows * pitch), whole = b_low ? b_high.size(0) / kDepth : 1;
  const int64_t pieces = std::max<int64_t>(std::min(room, whole), 1);
  const bool apart = pieces > 1 || pitch != columns;
  Tensor sums = apart ? device_empty(out, {pieces, rows, pitch}) : torch::stable::view(out, {1, rows, columns});
  Tensor first = torch::stable::select(sums, 0, 0);
  if (b_low) {
    multiply_by_pieces(sums, *a.high, b_high);
    matmul(first, *a.low, b_high, Then::kAdd);
    matmul(first, *a.high, *b_low, Then::kAdd);
  } else {
    matmul(first, *a.high, b_high);
  }
  if (!a.unit && !apart) return;
  if (!a.unit) {
    LAUNCH(drop_padding, cell_blocks(rows, columns), kHeadThreads, 0, current_stream(out), sums.const_data_ptr<float>(),
           out.mutable_data_ptr<float>(), columns, pitch);
    return;
  }
  LAUNCH(apply_units, cell_blocks(rows, columns), kHeadThreads, 0, current_stream(out), sums.const_data_ptr<float>(),
         a.unit->const_data_ptr<float>(), column_unit, out.mutable_data_ptr<float>(), rows, columns, pitch,
         static_cast<int>(pieces));
}

// out [m, n], contiguous, = a [m, d] b^T [d, n].
inline void multiply_transposed(Tensor& out, const Factor& a, const Factor& b) {
  const auto turned = [](const Tensor& tensor) { return torch::stable::transpose(tensor, 0, 1); };
  if (out.numel() == 0) return;
  if (!a.high || !b.high) return matmul(out, a.rows, turned(b.rows));
  const std::optional<Tensor> low = b.low ? std::optional(turned(*b.low)) : std::nullopt;
  multiply_parts(out, a, turned(*b.high), low, units_of(b));
}

// out [m, d], contiguous, = a [m, n] b [n, d]; a was split for the columns of b.
inline void multiply(Tensor& out, const Factor& a, const Factor& b) {
  if (out.numel() == 0) return;
  if (!a.high || !b.high) return matmul(out, a.rows, b.rows);
  multiply_parts(out, a, *b.high, b.low, nullptr);
}

}  // namespace
}  // namespace ise_fast
