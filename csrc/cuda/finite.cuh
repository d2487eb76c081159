// Lengths of rows, and the refusal of rows with NaN or infinity by operators that wait for the device anyway.
#pragma once

#include "head.cuh"

namespace ise_fast {
namespace {

// A warp a row.
__global__ void row_lengths(const float* rows, double* lengths, int64_t n, int64_t d) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kHeadWarps + threadIdx.x / kWarpSize;
  if (i >= n) return;
  const double square = warp_dot(rows + i * d, rows + i * d, d);
  if (threadIdx.x % kWarpSize == 0) lengths[i] = sqrt(square);
}

__global__ void first_unbounded(const float* rows, unsigned long long* first, int64_t n, int64_t d) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kHeadWarps + threadIdx.x / kWarpSize;
  if (i >= n) return;
  const double square = warp_dot(rows + i * d, rows + i * d, d);
  if (threadIdx.x % kWarpSize == 0 && !(square < INFINITY)) atomicMin(first, static_cast<unsigned long long>(i));
}

// Throws as the CPU operators do. Waits for the stream.
inline void check_finite_rows(const Tensor& rows, const char* name, cudaStream_t stream) {
  if (rows.size(0) == 0) return;
  Tensor word = device_empty(rows, {1}, ScalarType::Long);
  auto* const first = reinterpret_cast<unsigned long long*>(word.mutable_data_ptr<int64_t>());
  fill_bytes(first, 0xff, sizeof *first, stream);
  LAUNCH(first_unbounded, blocks_for(rows.size(0), kHeadWarps), kHeadThreads, 0, stream, rows.const_data_ptr<float>(),
         first, rows.size(0), rows.size(1));
  const unsigned long long bad = read_back(first, stream);
  check(bad == ~0ull, name, ": expected finite values, got NaN or infinity in row ", bad);
}

}  // namespace
}  // namespace ise_fast
