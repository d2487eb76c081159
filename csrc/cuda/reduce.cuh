// Reductions and scans over the lanes of a warp and the threads of a block. Every sum has one order: the tree of
// math/dot.h (16, 8, 4, 2, 1 apart) over the 32 lanes, then the same tree over the warps. All threads of the warp or
// block take part, and all of them receive the result.
#pragma once

#include <cstdint>

#include "launch.h"

namespace ise_fast {

constexpr int kWarpSize = 32;
constexpr unsigned kWholeWarp = 0xffffffffu;

struct Sum {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};
struct Min {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return b < a ? b : a;
  }
};
struct Max {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a < b ? b : a;
  }
};

// `op` must be commutative: lane l combines with lane l ^ 16, then l ^ 8, ..., so that all lanes walk the same tree.
template <class T, class Op>
__device__ __forceinline__ T warp_reduce(T value, Op op) {
  for (int apart = kWarpSize / 2; apart > 0; apart /= 2) value = op(value, __shfl_xor_sync(kWholeWarp, value, apart));
  return value;
}

template <class T>
__device__ __forceinline__ T warp_sum(T value) {
  return warp_reduce(value, Sum{});
}

// One-dimensional blocks of a multiple of 32 threads. `scratch` is shared memory for one T a warp; `identity` is what
// stands in for absent warps. Contains two barriers; the caller needs none before using `scratch` again.
template <class T, class Op>
__device__ __forceinline__ T block_reduce(T value, Op op, T identity, T* scratch) {
  const unsigned lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  value = warp_reduce(value, op);
  if (lane == 0) scratch[warp] = value;
  __syncthreads();
  value = warp_reduce(lane < blockDim.x / kWarpSize ? scratch[lane] : identity, op);
  __syncthreads();  // nobody may overwrite `scratch` before every warp has read it
  return value;
}

template <class T>
__device__ __forceinline__ T block_sum(T value, T* scratch) {
  return block_reduce(value, Sum{}, T(0), scratch);
}

// The sum over lower lanes. Integers: a scan adds in another order than the tree.
template <class T>
__device__ __forceinline__ T warp_exclusive_sum(T value) {
  const int lane = threadIdx.x % kWarpSize;
  T inclusive = value;
  for (int apart = 1; apart < kWarpSize; apart *= 2) {
    const T below = __shfl_up_sync(kWholeWarp, inclusive, apart);
    if (lane >= apart) inclusive += below;
  }
  return inclusive - value;
}

// The sum over the threads before, and in `total` that over all. As block_reduce otherwise.
template <class T>
__device__ __forceinline__ T block_exclusive_sum(T value, T* scratch, T& total) {
  const unsigned lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  const T before = warp_exclusive_sum(value);
  if (lane == kWarpSize - 1) scratch[warp] = before + value;
  __syncthreads();
  const T of_warp = lane < blockDim.x / kWarpSize ? scratch[lane] : T(0);
  const T before_warp = warp_exclusive_sum(of_warp);
  total = __shfl_sync(kWholeWarp, before_warp + of_warp, kWarpSize - 1);
  __syncthreads();  // nobody may overwrite `scratch` before every warp has read it
  return before + __shfl_sync(kWholeWarp, before_warp, static_cast<int>(warp));
}

}  // namespace ise_fast
