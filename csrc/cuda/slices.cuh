// Inner products of float32 rows by tensor cores, exact but for a measured remainder. A row times a power of two is
//   S1 + S2 / 2^7 + S3 / 2^14 + S4 / 2^21 + S5 / 2^28 + remainder        S: whole numbers, in float16
// and of the products of slices S_i and T_j of two rows those with i + j <= 6 are formed, the sums of equal i + j, a
// level, by one product of the library: slices lie side by side, those of a gallery row in descending order, so the
// factors of a level are neighbours.
//
// Every sum of the library is exact, in any order and with truncation: float32 holds whole numbers up to 2^24. With
// c = min(d, 4096), |S1| <= 63.5 sqrt(c) (and no number above 2^11, float16's last), and S2 to S5 have numbers up to
// 64, |S| <= 64 sqrt(c). So c terms of a pair of slices are at most 4096 c by Cauchy-Schwarz, and a sum goes over whole
// pairs of slices of 4096 terms together, or over 4096 terms of one pair: kMostTerms.
//
// What is left out: with R_i the remainder after i slices, a.b = sum over i of S_i.(T_1 + ... + T_(6-i)) + the rest,
//   |the rest| <= sum over i of |S_i| |R_(6-i) of b| + |R_5 of a| |b|
//              <= 1.02 (|a| |R_5 of b| + |R_5 of a| |b| + 2^-33 coarse_a coarse_b)     coarse = max of 2^(7 i) |R_i|
// since |S_1| <= |a| + |R_1| and |S_i| <= |R_(i-1)| + |R_i|, each |R_i| at most 2^(-7 i) coarse.
#pragma once

#include "pair_filter.cuh"

namespace ise_fast {
namespace {

constexpr int kSlices = 5, kLevels = 5;
constexpr double kSliceStep = 128;  // 7 bits a slice
constexpr int64_t kMostTerms = 4096;

// What is known of sliced rows, in the units of the rows.
struct SliceTerms {
  double* squared;  // |row|^2
  double* unit;     // of the numbers in S1
  double* last;     // |R_5|
  double* coarse;
};

// The power of two that |row| in units of S1 stays below.
inline double slice_length(int64_t d) {
  const double limit = 63 * std::sqrt(static_cast<double>(std::clamp<int64_t>(d, 1, kMostTerms)));
  return std::min(2048.0, std::ldexp(1.0, std::ilogb(limit)));
}

// Rows of `whole` numbers a slice; those from n on are zeros, and so are columns from d on. A warp a row.
__global__ void slice_rows(const float* rows, int64_t n, int64_t d, int64_t whole, int64_t all, double length,
                           bool descending, __half* slices, SliceTerms terms) {
  const int lane = threadIdx.x % kWarpSize;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kFilterWarps + threadIdx.x / kWarpSize;
  if (i >= all) return;
  const float* row = rows + i * d;
  const int64_t columns = i < n ? d : 0;
  const double squared = warp_sum(dot_lane(row, row, columns, lane));
  const double by = power_below(sqrt(squared)) * (length / 2);
  double remainder[kSlices] = {};
  for (int64_t c = lane; c < whole; c += kWarpSize) {
    // All of it is exact: float32 holds a number less the nearest whole one. (What underflows is nothing beside a row.)
    float value = c < columns ? static_cast<float>(static_cast<double>(row[c]) * by) : 0.0f;
#pragma unroll
    for (int s = 0; s < kSlices; ++s) {
      const float near = rintf(value);
      slices[(i * kSlices + (descending ? kSlices - 1 - s : s)) * whole + c] = __float2half_rn(near);
      const double left = value - near;
      remainder[s] += left * left;
      value = (value - near) * static_cast<float>(kSliceStep);
    }
  }
  double largest = 0;
#pragma unroll
  for (int s = 0; s < kSlices; ++s) {
    remainder[s] = warp_sum(remainder[s]);
    largest = Max{}(largest, remainder[s]);
  }
  if (lane != 0 || i >= n) return;
  terms.squared[i] = squared;
  terms.unit[i] = 1 / by;
  terms.last[i] = sqrt(remainder[kSlices - 1]) * 0x1p-28 / by;
  terms.coarse[i] = sqrt(largest) * kSliceStep / by;
}

// Some rows, sliced.
struct SlicedRows {
  Tensor slices;  // [rows filled up to whole sectors, 5 slices] f16
  Tensor terms;   // [4, rows] f64
  int64_t whole;  // numbers of a slice: d filled up to whole sectors
  bool descending;

  SlicedRows(const Tensor& like, int64_t rows, int64_t d, bool descending)
      : slices(device_empty(like, {whole_sectors(rows), kSlices * whole_sectors(d)}, ScalarType::Half)),
        terms(device_empty(like, {4, rows}, ScalarType::Double)),
        whole(whole_sectors(d)),
        descending(descending) {}

  SliceTerms pointers() const {
    auto* first = terms.mutable_data_ptr<double>();
    const int64_t n = terms.size(1);
    return {first, first + n, first + 2 * n, first + 3 * n};
  }

  // Takes the next n rows, not more than there is room for.
  void take(const float* rows, int64_t n, int64_t d, cudaStream_t stream) const {
    const int64_t all = whole_sectors(n);
    LAUNCH(slice_rows, warps_grid(all), kFilterThreads, 0, stream, rows, n, d, whole, all, slice_length(d), descending,
           static_cast<__half*>(slices.mutable_data_ptr()), pointers());
  }
};

// The sums of the library: planes [sums, queries, gallery rows] f32, those of a level beside each other, the finest
// level first.
struct SliceSums {
  const float* planes;
  int64_t plane, pitch;  // from a sum to the next, from a query to the next
  int end[kLevels];      // of the planes of a level
};

// For each sum of the library, in the order of the planes: add(level, first column of a query, of a gallery row, how
// many columns). Levels count from 0, i + j = 6, to 4, i + j = 2.
template <class Add>
void for_slice_sums(int64_t whole, const Add& add) {
  const int64_t at_once = std::max<int64_t>(kMostTerms / std::max<int64_t>(whole, 1), 1);
  for (int level = 0; level < kLevels; ++level) {
    const int pairs = kLevels - level;  // (1, pairs), (2, pairs - 1), ...: from the first slice on, in T's from T_pairs
    for (int64_t pair = 0; pair < pairs; pair += at_once) {
      const int64_t columns = std::min<int64_t>(at_once, pairs - pair) * whole;
      const int64_t most = at_once > 1 ? columns : kMostTerms;
      for (int64_t c = 0; c < columns; c += most) {
        add(level, pair * whole + c, (kSlices - pairs + pair) * whole + c, std::min(most, columns - c));
      }
    }
  }
}

inline int64_t count_slice_sums(int64_t whole) {
  int64_t count = 0;
  for_slice_sums(whole, [&](int, int64_t, int64_t, int64_t) { ++count; });
  return count;
}

inline SliceSums slice_sums(const Tensor& planes, int64_t whole) {
  SliceSums sums{planes.const_data_ptr<float>(), planes.stride(0), planes.stride(1), {}};
  for_slice_sums(whole, [&](int level, int64_t, int64_t, int64_t) {
    for (int finer = level; finer < kLevels; ++finer) ++sums.end[finer];
  });
  return sums;
}

// The sums of the first `m` of the rows `query` with the first n of `gallery`.
inline void multiply_slices(const Tensor& planes, const SlicedRows& query, const SlicedRows& gallery, int64_t m,
                            int64_t n) {
  Tensor all = planes, left = query.slices, right = gallery.slices;
  int plane = 0;
  for_slice_sums(query.whole, [&](int, int64_t from, int64_t other, int64_t columns) {
    Tensor sums = torch::stable::select(all, 0, plane++);
    sums = torch::stable::narrow(sums, 0, 0, m);
    Tensor out = torch::stable::narrow(sums, 1, 0, whole_sectors(n));
    Tensor mine = torch::stable::narrow(left, 0, 0, m), theirs = torch::stable::narrow(right, 0, 0, whole_sectors(n));
    theirs = torch::stable::narrow(theirs, 1, other, columns);
    matmul(out, torch::stable::narrow(mine, 1, from, columns), torch::stable::transpose(theirs, 0, 1));
  });
}

// The inner products of some queries with gallery row g, in units of S1 of both.
template <int kQueries>
__device__ void slice_dots(const SliceSums& sums, const int64_t (&query)[kQueries], int64_t g,
                           double (&dot)[kQueries]) {
  int64_t p = 0;
#pragma unroll
  for (int t = 0; t < kQueries; ++t) dot[t] = 0;
#pragma unroll
  for (int level = 0; level < kLevels; ++level) {
#pragma unroll
    for (int t = 0; t < kQueries; ++t) dot[t] *= 1 / kSliceStep;
    for (; p < sums.end[level]; ++p) {
#pragma unroll
      for (int t = 0; t < kQueries; ++t) {
        dot[t] += static_cast<double>(sums.planes[p * sums.plane + query[t] * sums.pitch + g]);
      }
    }
  }
}

// The terms of a row, read once for several pairs.
struct SlicedRow {
  double squared, length, unit, last, coarse;

  __device__ SlicedRow(const SliceTerms& terms, int64_t i)
      : squared(terms.squared[i]),
        length(sqrt(squared)),
        unit(terms.unit[i]),
        last(terms.last[i]),
        coarse(terms.coarse[i]) {}
};

// A squared distance, and how far it can be from the one of math/distance.h.
struct NearlySquared {
  double value, error;

  // The error: twice what slices leave out, and the rounding of both distances in float64, and of a division of them,
  // each below (d / 8 + 80) 2^-53 (|a|^2 + |b|^2): lanes add d / 32 terms and fold 5 times, and no distance is above
  // twice that. This is 32 times as much.
  __device__ NearlySquared(const SlicedRow& a, const SlicedRow& b, double dot, int64_t d)
      : value(a.squared + b.squared - 2 * (dot * a.unit * b.unit)),
        error(2.04 * (a.length * b.last + a.last * b.length + 0x1p-33 * (a.coarse * b.coarse)) +
              static_cast<double>(d + 64) * 0x1p-51 * (a.squared + b.squared)) {}
};

}  // namespace
}  // namespace ise_fast
