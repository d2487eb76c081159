// Principal axes of rows, from a sample, by matrix products alone: a decomposition, as csrc/cpu/axes.h has it, takes
// a GPU longer than the search of ten thousand rows. The span of some rows of the sample S is made orthonormal,
// multiplied by S^T S, which turns it towards the directions of most energy, and made orthonormal again, by the
// iteration of Newton and Schulz,
//   Y <- (3 - Y Y^T) Y / 2,
// which moves every singular value in (0, 1] to 1 and leaves 0 where it is.
//
// Nothing exact rests on what comes out: a bound of its largest singular value is measured, in float64, and whoever
// rotates divides by it. Axes that are few, equal or skewed cost candidates, not answers.
#pragma once

#include "pair_filter.cuh"

namespace ise_fast {
namespace {

constexpr int64_t kSamplesOfAxis = 16;
// A small singular value grows by half in a step: 1.5^19 and 1.5^30 bring 1 / 2,000 of the length of all axes and its
// square near 1, the rest are for the last digits. Features of a network need three quarters of them.
constexpr int kFirstSteps = 24, kSecondSteps = 36;

// Every n / count-th of the rounded rows, in float32; a warp a row.
__global__ void sample_rows(const __half* rows, float* out, int64_t n, int64_t count, int64_t d) {
  const int64_t r = static_cast<int64_t>(blockIdx.x) * kFilterWarps + threadIdx.x / kWarpSize;
  if (r >= count) return;
  const __half* from = rows + r * n / count * d;
  for (int64_t c = threadIdx.x % kWarpSize; c < d; c += kWarpSize) out[r * d + c] = __half2float(from[c]);
}

// Divides the axes by the root of the trace of gram = axes axes^T, so that no singular value is above 1; a block an
// axis.
__global__ void shorten_axes(float* axes, const float* gram, int64_t width, int64_t d) {
  __shared__ float scratch[kFilterWarps];
  float trace = 0;
  for (int64_t j = threadIdx.x; j < width; j += kFilterThreads) trace += gram[j * width + j];
  trace = block_sum(trace, scratch);
  const float by = trace > 0 ? 1 / sqrtf(trace) : 0.0f;
  for (int64_t c = threadIdx.x; c < d; c += kFilterThreads) axes[blockIdx.x * d + c] *= by;
}

// (3 - gram) / 2, in place; a thread a number.
__global__ void sharpening(float* gram, int64_t width) {
  const int64_t e = static_cast<int64_t>(blockIdx.x) * kFilterThreads + threadIdx.x;
  if (e >= width * width) return;
  gram[e] = (e / width == e % width ? 1.5f : 0.0f) - gram[e] / 2;
}

// The largest sum of |axis . other axis| over all others, the axis included: no less than the square of the largest
// singular value (Gershgorin). A block an axis.
__global__ void measure_axes(const float* axes, unsigned long long* largest, int64_t width, int64_t d) {
  __shared__ double scratch[kFilterWarps];
  const int lane = threadIdx.x % kWarpSize;
  double sum = 0;
  for (int64_t j = threadIdx.x / kWarpSize; j < width; j += kFilterWarps) {
    sum += fabs(warp_sum(dot_lane(axes + blockIdx.x * d, axes + j * d, d, lane)));
  }
  sum = block_sum(lane == 0 ? sum : 0.0, scratch);
  if (threadIdx.x == 0) raise(largest, double_bits(sum));
}

struct Axes {
  Tensor rows;     // [width, d] f32
  Tensor largest;  // of measure_axes
};

inline Tensor turned(const Tensor& matrix) {
  return torch::stable::transpose(matrix, 0, 1);
}

// Of fixed cost, and without chance. rounded: float16 rows of lengths in [1, 2).
inline Axes principal_axes(const Tensor& rounded, int64_t width, cudaStream_t stream) {
  const int64_t n = rounded.size(0), d = rounded.size(1), samples = std::min(n, kSamplesOfAxis * width);
  const auto matrix = [&](int64_t rows, int64_t columns) {
    return device_empty(rounded, {rows, columns}, ScalarType::Float);
  };
  const auto draw = [&](int64_t count) {
    Tensor drawn = matrix(count, d);
    LAUNCH(sample_rows, warps_grid(count), kFilterThreads, 0, stream,
           static_cast<const __half*>(rounded.const_data_ptr()), drawn.mutable_data_ptr<float>(), n, count, d);
    return drawn;
  };
  const auto blocks = static_cast<unsigned>(width);
  const auto cells = static_cast<unsigned>((width * width + kFilterThreads - 1) / kFilterThreads);
  const Tensor sample = draw(samples);
  Tensor axes = draw(width), next = matrix(width, d), along = matrix(width, samples), gram = matrix(width, width);
  const auto make_orthonormal = [&](int steps) {
    matmul(gram, axes, turned(axes));
    LAUNCH(shorten_axes, blocks, kFilterThreads, 0, stream, axes.mutable_data_ptr<float>(),
           gram.const_data_ptr<float>(), width, d);
    for (int step = 0; step < steps; ++step) {
      matmul(gram, axes, turned(axes));
      LAUNCH(sharpening, cells, kFilterThreads, 0, stream, gram.mutable_data_ptr<float>(), width);
      matmul(next, gram, axes);
      std::swap(axes, next);
    }
  };
  make_orthonormal(kFirstSteps);
  matmul(along, axes, turned(sample));
  matmul(axes, along, sample);
  make_orthonormal(kSecondSteps);
  Tensor largest = device_zeros(rounded, {}, ScalarType::Long);
  LAUNCH(measure_axes, blocks, kFilterThreads, 0, stream, axes.const_data_ptr<float>(),
         reinterpret_cast<unsigned long long*>(largest.mutable_data_ptr<int64_t>()), width, d);
  return {axes, largest};
}

}  // namespace
}  // namespace ise_fast
