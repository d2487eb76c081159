// Reciprocal sets and the half sets that join them; the definitions are in csrc/cpu/k_reciprocal.h.
#pragma once

#include "../math/k_reciprocal.h"
#include "csr.cuh"

namespace ise_fast {
namespace {

using Csr = DeviceCsr<int32_t, float>;

// One short list per row.
struct Lists {
  int32_t* items;
  int32_t* sizes;
  int64_t stride;

  __device__ bool contains(int64_t i, int32_t j) const {
    for (int32_t s = 0; s < sizes[i]; ++s) {
      if (items[i * stride + s] == j) return true;
    }
    return false;
  }
  // A set lies in slots, some of which may be empty.
  __device__ int32_t slots(int64_t i) const { return sizes[i]; }
  __device__ bool has(int64_t, int32_t) const { return true; }
  __device__ int32_t item(int64_t i, int32_t s) const { return items[i * stride + s]; }
  template <class Visit>
  __device__ void each(int64_t i, const Visit& visit) const {
    for (int32_t s = 0, count = sizes[i]; s < count; ++s) visit(items[i * stride + s]);
  }
};

// Is i among the first `width` neighbours of j?
__device__ inline bool is_listed(const int32_t* nn, int64_t k1, int64_t width, int64_t j, int64_t i) {
  const auto wanted = static_cast<int32_t>(i);
  bool found = false;
  for (const int32_t *back = nn + j * k1, *end = back + width; back < end && !found; ++back) found = *back == wanted;
  return found;
}

// Neighbours in 32 bits. `from_bad`: how many there are from the first one on that is no row, which becomes row 0.
__global__ void narrow_neighbours(const int64_t* wide, int64_t n, int64_t rows, int32_t* narrow,
                                  unsigned long long* from_bad) {
  const int64_t p = thread_index();
  if (p >= n) return;
  const bool good = 0 <= wide[p] && wide[p] < rows;
  narrow[p] = good ? static_cast<int32_t>(wide[p]) : 0;
  if (!good) atomicMax(from_bad, static_cast<unsigned long long>(n - p));
}

// List `row` is of row i = first + row, by a warp: those of its first `width` neighbours that have i among their first
// `width`.
__global__ void reciprocal_sets(const int32_t* nn, int64_t first, int64_t rows, int64_t k1, int64_t width, Lists sets) {
  const int lane = threadIdx.x % kWarpSize;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kCsrWarps + threadIdx.x / kWarpSize, i = first + row;
  if (row >= rows) return;
  int32_t size = 0;
  for (int64_t start = 0; start < width; start += kWarpSize) {
    const int64_t r = start + lane;
    const int32_t j = r < width ? nn[i * k1 + r] : 0;
    const bool mutual = r < width && is_listed(nn, k1, width, j, i);
    const unsigned votes = __ballot_sync(kWholeWarp, mutual);
    if (mutual) sets.items[row * sets.stride + size + __popc(votes & ((1u << lane) - 1))] = j;
    size += __popc(votes);
  }
  if (lane == 0) sets.sizes[row] = size;
}

}  // namespace
}  // namespace ise_fast
