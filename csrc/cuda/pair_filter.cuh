// The certified filter on a GPU: approximate scores of all pairs of rows from a float16 matrix product with float32
// accumulation, and a proven bound on how far each may be from the exact one (csrc/cpu/pair_filter.h has the same with
// a float32 product). Score of query q and base row b, smaller is nearer: ||b||^2 / 2 - q.b; cosine: -q.b of unit rows.
//
// Each row is scaled by a power of two to a length in [1, 2) and rounded to float16; r = ||row - rounded row|| is
// measured, not estimated. By Cauchy-Schwarz, with u = 2^-24,
//   |q.b - q^.b^| <= r_q ||b|| + ||q^|| r_b + 4 d u ||q^|| ||b^||
// where the last term is the accumulation of d products. Tensor cores truncate, hence 2 u; how, NVIDIA does not say, so
// that is taken twice (tests/simt/test_products.py has a model that comes near the first 2 u).
#pragma once

#include <cuda_fp16.h>
#include <torch/csrc/stable/ops.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "../check_neighbors.h"
#include "allocate.h"
#include "gemm.h"
#include "launch.h"
#include "reduce.cuh"

namespace ise_fast {

constexpr int kFilterThreads = 256;
constexpr int kFilterWarps = kFilterThreads / kWarpSize;
constexpr int kFilterBlocks = 4;  // on a multiprocessor, of kernels that wait for memory
constexpr unsigned long long kNoRow = ~0ull;
constexpr int64_t kFewestTileRows = 16;

// What all rows have in common, found by integer minima and maxima (float64 >= 0 sorts as its bits do).
struct RowExtremes {
  unsigned long long bad_row = kNoRow;   // first row with NaN or infinity
  unsigned long long long_row = kNoRow;  // first row whose squared length is infinite
  unsigned long long squared = 0;        // largest squared length
  unsigned long long tiny = 0;           // 1 if some squared length is near the end of float64's range, but not 0
  unsigned long long residual = 0;       // largest residual, in the units of the scores
};

// What turns a product of rounded rows into a score; read as one, since every pair needs both.
struct alignas(8) ScoreTerms {
  float half;    // ||row||^2 / 2 in score units; cosine: 0
  float factor;  // product of two rounded rows * both factors = product of the rows, in score units

  // The score of the row as a base row. query_factor: the query's.
  __device__ float of(float product, float query_factor) const { return half - query_factor * product * factor; }
};

// Rows as the kernels see them.
template <class T>
struct FilterRows {
  const T* original;      // [n, d]
  const double* squared;  // dot(row, row)
  const ScoreTerms* terms;
  const double* residual;  // r, in score units
  const RowExtremes* extremes;
  int64_t n, d;
  int64_t columns;  // of the product: d, or those of a prefix (prefix.cuh)
  int64_t pitch;    // from a row of the product with these base rows to the next
};

// Consecutive queries from `first`, or those that a list names there.
struct Queries {
  const int64_t* list;  // null: all
  int64_t first;

  __device__ int64_t operator[](int64_t r) const { return list ? list[first + r] : first + r; }
};

// Units and constants of the scores.
struct FilterUnits {
  Metric metric;
  double scale;     // score units per original unit: a power of two that brings the longest row near 1
  double longest;   // longest base row, in score units
  double absolute;  // part of the margin that is the same for all pairs
};

__device__ inline double bits_double(unsigned long long bits) {
  double value;
  memcpy(&value, &bits, sizeof value);
  return value;
}
__device__ inline unsigned long long double_bits(double value) {
  unsigned long long bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

template <class T>
__device__ double query_length(const FilterRows<T>& query, const FilterUnits& units, int64_t i) {
  return units.metric == Metric::kCosine ? 1.0 : sqrt(query.squared[i]) * units.scale;
}

// How far the score of query i with any base row can be from the exact one.
template <class T>
__device__ double score_margin(const FilterRows<T>& query, const FilterRows<T>& base, const FilterUnits& units,
                               int64_t i) {
  const double length = query_length(query, units, i), residual = query.residual[i];
  const double base_residual = bits_double(base.extremes->residual);
  const double rounded = length + residual, base_rounded = units.longest + base_residual;
  const double d = static_cast<double>(base.d), sum = static_cast<double>(4 * base.columns + 16) * 0x1p-24;
  return 1.02 * (residual * units.longest + rounded * base_residual + sum * rounded * base_rounded) + units.absolute +
         (d + 32) * 0x1p-52 * (length + units.longest) * (length + units.longest);
}

// The exact score that belongs to a compared distance.
template <class T>
__device__ double exact_score(const FilterRows<T>& query, const FilterUnits& units, int64_t i, double distance) {
  if (units.metric == Metric::kCosine) return distance - 1;
  const double length = query_length(query, units, i);
  return (distance * units.scale * units.scale - length * length) / 2;
}

template <class T>
__device__ float approximate_score(const FilterRows<T>& query, const FilterRows<T>& base, float product, int64_t i,
                                   int64_t j) {
  return base.terms[j].of(product, query.terms[i].factor);
}

// *largest = max(*largest, value). A look first: most values change nothing, and atomics on one word wait for each
// other.
__device__ inline void raise(unsigned long long* largest, unsigned long long value) {
  if (value > load_relaxed(largest)) atomicMax(largest, value);
}

// Squared lengths and their extremes; a warp a row.
template <class T>
__global__ void measure_rows(const T* rows, double* squared, RowExtremes* extremes, int64_t n, int64_t d) {
  const int lane = threadIdx.x % kWarpSize;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kFilterWarps + threadIdx.x / kWarpSize;
  if (i >= n) return;
  const double sum = warp_sum(dot_lane(rows + i * d, rows + i * d, d, lane));
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  bool finite = true;
  if (!(sum < kInfinity)) {
    for (int64_t c = lane; c < d; c += kWarpSize) finite &= fabs(static_cast<double>(rows[i * d + c])) < kInfinity;
  }
  finite = __all_sync(kWholeWarp, finite);
  if (lane != 0) return;
  squared[i] = sum;
  if (!finite) {
    atomicMin(&extremes->bad_row, static_cast<unsigned long long>(i));
  } else if (!(sum < kInfinity)) {
    atomicMin(&extremes->long_row, static_cast<unsigned long long>(i));
  } else {
    raise(&extremes->squared, double_bits(sum));
    if (0 < sum && sum < 1e-150) atomicMax(&extremes->tiny, 1ull);
  }
}

// The power of two that brings a length into [1, 2).
__device__ inline double power_below(double length) {
  return length > 0 ? ldexp(1.0, -ilogb(length)) : 1.0;
}

// Score units per unit of a row of that length, times `by`; of a zero row 0, for the scale alone may exceed float32.
__device__ inline double score_unit(const FilterUnits& units, double length, double by) {
  if (!(length > 0)) return 0;
  return units.metric == Metric::kCosine ? 1 / (length * by) : units.scale / by;
}

// The float16 copy and what the scores need to know of it; a warp a row.
template <class T>
__global__ void round_rows(const T* rows, const double* squared, __half* rounded, ScoreTerms* terms, double* residual,
                           RowExtremes* extremes, FilterUnits units, int64_t n, int64_t d) {
  const int lane = threadIdx.x % kWarpSize;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kFilterWarps + threadIdx.x / kWarpSize;
  if (i >= n) return;
  const double length = sqrt(squared[i]);
  const double by = power_below(length);
  double sum = 0;
  for (int64_t c = lane; c < d; c += kWarpSize) {
    const double scaled = static_cast<double>(rows[i * d + c]) * by;
    const __half near = __float2half_rn(static_cast<float>(scaled));
    rounded[i * d + c] = near;
    const double off = scaled - static_cast<double>(__half2float(near));
    sum += off * off;
  }
  sum = warp_sum(sum);
  if (lane != 0) return;
  const bool cosine = units.metric == Metric::kCosine;
  const double unit = score_unit(units, length, by);
  terms[i] = {cosine ? 0.0f : static_cast<float>(squared[i] * units.scale * units.scale / 2), static_cast<float>(unit)};
  residual[i] = sqrt(sum) * unit;
  raise(&extremes->residual, double_bits(residual[i]));
}

// Rows of one tensor, prepared.
struct FilterSide {
  Tensor original, squared, terms, residual, extremes;
  Tensor rounded;  // new_rounded

  template <class T>
  FilterRows<T> rows() const {
    return {original.const_data_ptr<T>(),
            squared.const_data_ptr<double>(),
            reinterpret_cast<const ScoreTerms*>(terms.const_data_ptr<float>()),
            residual.const_data_ptr<double>(),
            reinterpret_cast<const RowExtremes*>(extremes.const_data_ptr<int64_t>()),
            original.size(0),
            original.size(1),
            original.size(1),
            whole_sectors(original.size(0))};
  }
};

inline unsigned warps_grid(int64_t rows) {
  return static_cast<unsigned>((rows + kFilterWarps - 1) / kFilterWarps);
}

// Waits for the stream: only then is it known whether the features are finite.
template <class T>
RowExtremes measure_side(FilterSide& side, const Tensor& tensor, const char* name, cudaStream_t stream) {
  side.original = device_contiguous(tensor);
  const int64_t n = tensor.size(0), d = tensor.size(1);
  side.squared = device_empty(tensor, {n}, ScalarType::Double);
  side.extremes = device_empty(tensor, {sizeof(RowExtremes) / 8}, ScalarType::Long);
  auto* extremes = reinterpret_cast<RowExtremes*>(side.extremes.mutable_data_ptr<int64_t>());
  fill_bytes(extremes, 0xff, offsetof(RowExtremes, squared), stream);
  fill_bytes(&extremes->squared, 0, sizeof(RowExtremes) - offsetof(RowExtremes, squared), stream);
  if (n > 0) {
    LAUNCH(measure_rows<T>, warps_grid(n), kFilterThreads, 0, stream, side.original.const_data_ptr<T>(),
           side.squared.mutable_data_ptr<double>(), extremes, n, d);
  }
  const RowExtremes result = read_back(extremes, stream);
  check(result.bad_row == kNoRow, name, ": expected finite values, got NaN or infinity in row ", result.bad_row);
  check(result.long_row == kNoRow, name,
        ": expected rows whose squared length float64 can hold, got a longer one in row ", result.long_row);
  return result;
}

// float16 rows for `n` of `columns`, and zeros that make them a whole number of sectors of a product.
inline Tensor new_rounded(const Tensor& like, int64_t n, int64_t columns, cudaStream_t stream) {
  Tensor rows = device_empty(like, {whole_sectors(n), columns}, ScalarType::Half);
  const int64_t numbers = (rows.size(0) - n) * columns;
  if (numbers > 0) {
    fill_bytes(static_cast<__half*>(rows.mutable_data_ptr()) + n * columns, 0, numbers * sizeof(__half), stream);
  }
  return rows;
}

template <class T>
void round_side(FilterSide& side, const FilterUnits& units, cudaStream_t stream) {
  const int64_t n = side.original.size(0), d = side.original.size(1);
  side.rounded = new_rounded(side.original, n, d, stream);
  side.terms = device_empty(side.original, {n, 2}, ScalarType::Float);
  side.residual = device_empty(side.original, {n}, ScalarType::Double);
  if (n == 0) return;
  LAUNCH(round_rows<T>, warps_grid(n), kFilterThreads, 0, stream, side.original.const_data_ptr<T>(),
         side.squared.const_data_ptr<double>(), static_cast<__half*>(side.rounded.mutable_data_ptr()),
         reinterpret_cast<ScoreTerms*>(side.terms.mutable_data_ptr<float>()), side.residual.mutable_data_ptr<double>(),
         reinterpret_cast<RowExtremes*>(side.extremes.mutable_data_ptr<int64_t>()), units, n, d);
}

// Prepares both sides; y is null when the rows of x are compared with each other (then only `base` is filled).
template <class T>
FilterUnits prepare_filter(FilterSide& base, FilterSide& query, const Tensor& x, const Tensor* y, Metric metric,
                           cudaStream_t stream) {
  const auto as_double = [](unsigned long long bits) {
    double value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  };
  const RowExtremes of_x = measure_side<T>(base, x, "x", stream);
  const double longest = std::sqrt(as_double(of_x.squared));
  double longest_any = longest;
  bool tiny = of_x.tiny;
  if (y != nullptr) {
    const RowExtremes of_y = measure_side<T>(query, *y, "y", stream);
    longest_any = std::max(longest_any, std::sqrt(as_double(of_y.squared)));
    tiny |= of_y.tiny;
  }
  FilterUnits units{metric, 1, 1, 0};
  if (metric != Metric::kCosine) {
    if (longest_any > 0) units.scale = std::ldexp(1.0, -std::ilogb(longest_any));
    units.longest = longest * units.scale;
  }
  units.absolute = 4 * 0x1p-24 * units.longest * units.longest + static_cast<double>(x.size(1)) * 0x1p-100;
  // float64 input so small that its squares underflow: compare everything exactly.
  if (sizeof(T) == sizeof(double) && (tiny || longest_any < 1e-75)) {
    units.absolute = std::numeric_limits<double>::infinity();
  }
  round_side<T>(base, units, stream);
  if (y != nullptr) round_side<T>(query, units, stream);
  return units;
}

// Rows of a tile of the product with all n base rows: `block`, or as many as 4 GiB and an eighth of the device hold, in
// whole tiles of the library. A million rows of 2,048 columns are to fit into 40 GB with their tile.
inline int64_t tile_rows(int64_t queries, int64_t n, int64_t block) {
  constexpr int64_t kMostBytes = int64_t{1} << 32, kLibraryRows = 256;
  const int64_t fit = std::min(device_bytes() / 8, kMostBytes) / (4 * std::max<int64_t>(n, 1));
  const int64_t whole = fit < kLibraryRows ? fit : fit / kLibraryRows * kLibraryRows;
  return std::min(queries, block > 0 ? block : std::clamp<int64_t>(whole, kFewestTileRows, 16384));
}

// A tile's product; `height` rows of it are made at once.
struct Tile {
  int64_t height;
  Tensor product;
};

inline Tile new_tile(const Tensor& like, int64_t height, int64_t n) {
  return halve_on_failure(height, std::min(height, kFewestTileRows), [&](int64_t rows) {
    return Tile{rows, device_empty(like, {rows, whole_sectors(n)}, ScalarType::Float)};
  });
}

// product [rows, whole_sectors(n)] = rounded rows [first, first + rows) of the queries . rounded base rows, in the
// columns of base rows from `from` on.
inline Tensor multiply_tile(const Tensor& buffer, const Tensor& query, const Tensor& base, int64_t first, int64_t rows,
                            int64_t from = 0) {
  Tensor all = buffer, queries = query, others = base;
  Tensor product = torch::stable::narrow(all, 0, 0, rows);
  const int64_t columns = base.size(0) - from;
  Tensor out = torch::stable::narrow(product, 1, from, columns);
  matmul(out, torch::stable::narrow(queries, 0, first, rows),
         torch::stable::transpose(torch::stable::narrow(others, 0, from, columns), 0, 1));
  return product;
}

}  // namespace ise_fast
