// The largest distance from each row to any other, exact, by the certified filter (pair_filter.cuh): whatever scores
// within twice the margin of the row's largest approximate score is compared in float64.
#pragma once

#include "exact_distance.cuh"

namespace ise_fast {
namespace {

// Row `first + blockIdx.x` against all rows, whose products with it are row blockIdx.x of `product`.
__global__ void __launch_bounds__(kFilterThreads)
    furthest_rows(const float* product, FilterRows<float> rows, FilterUnits units, int64_t first, double* furthest) {
  __shared__ double scratch[kFilterWarps];
  const int64_t i = first + blockIdx.x;
  const float* row = product + blockIdx.x * rows.pitch;
  const int lane = threadIdx.x % kWarpSize;

  float largest = -INFINITY;
  for (int64_t j = threadIdx.x; j < rows.n; j += kFilterThreads) {
    largest = Max{}(largest, approximate_score(rows, rows, row[j], i, j));
  }
  const double least = block_reduce(static_cast<double>(largest), Max{}, static_cast<double>(-INFINITY), scratch) -
                       2 * score_margin(rows, rows, units, i);

  // Few threads have seen such a score: warps without one need not look again.
  double distance = 0.0;
  const int64_t end = __any_sync(kWholeWarp, !(static_cast<double>(largest) < least)) ? rows.n : 0;
  for (int64_t start = threadIdx.x / kWarpSize * kWarpSize; start < end; start += kFilterThreads) {
    const int64_t j = start + lane;
    const bool possible = j < rows.n && !(static_cast<double>(approximate_score(rows, rows, row[j], i, j)) < least);
    for (unsigned left = __ballot_sync(kWholeWarp, possible); left != 0; left &= left - 1) {
      distance = Max{}(distance, exact_distance(rows, rows, units.metric, i, start + __ffs(left) - 1));
    }
  }
  distance = block_reduce(distance, Max{}, 0.0, scratch);
  if (threadIdx.x == 0) furthest[i] = distance;
}

// furthest [n] = the largest squared distance of each row of x [n, d] f32, which must be finite. `block`: rows of a
// tile of the product, 0 chooses. Waits for the stream.
void furthest_squared(const Tensor& x, double* furthest, int64_t block, cudaStream_t stream) {
  constexpr int64_t kMostRows = 4096;  // enough to fill a device: the tile stays far below n x n
  FilterSide side, none;
  const FilterUnits units = prepare_filter<float>(side, none, x, nullptr, Metric::kSquaredEuclidean, stream);
  const int64_t n = x.size(0);
  const auto [height, buffer] = new_tile(x, std::min(kMostRows, tile_rows(n, n, block)), n);
  for (int64_t first = 0; first < n; first += height) {
    const int64_t count = std::min(height, n - first);
    const Tensor product = multiply_tile(buffer, side.rounded, side.rounded, first, count);
    LAUNCH(furthest_rows, static_cast<unsigned>(count), kFilterThreads, 0, stream, product.const_data_ptr<float>(),
           side.rows<float>(), units, first, furthest);
  }
}

}  // namespace
}  // namespace ise_fast
