// Choosing among many keys by one block: the k-th smallest by radix selection, and the chosen ones in index order.
#pragma once

#include "head.cuh"

namespace ise_fast {
namespace {

// The k-th smallest (k >= 1) of key_of(j), 0 <= j < count, for all threads of the block; kWorstKey if there are fewer
// that are better than it. Keys are all different except kWorstKey. bins: shared memory for 256 numbers.
template <class KeyOf>
__device__ uint64_t kth_key(int64_t count, int64_t k, unsigned* bins, KeyOf key_of) {
  uint64_t prefix = 0, mask = 0;
  for (int shift = 56; shift >= 0; shift -= 8) {
    for (int b = threadIdx.x; b < 256; b += kHeadThreads) bins[b] = 0;
    __syncthreads();
    for (int64_t j = threadIdx.x; j < count; j += kHeadThreads) {
      const uint64_t key = key_of(j);
      if ((key & mask) == prefix) atomicAdd(bins + (key >> shift & 255), 1u);
    }
    __syncthreads();
    unsigned bin = 0;
    for (; bin < 255 && bins[bin] < k; ++bin) k -= bins[bin];
    prefix |= static_cast<uint64_t>(bin) << shift;
    mask |= uint64_t{255} << shift;
    __syncthreads();  // nobody may clear the bins before everybody has read them
  }
  return prefix;
}

// put(j, place) for every wanted j < count, places 0, 1, ... in ascending order of j. Returns how many, to all threads
// of the block. counts: shared memory for a number a warp.
template <class Wanted, class Put>
__device__ int64_t compact(int64_t count, unsigned* counts, Wanted wanted, Put put) {
  const unsigned lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  int64_t base = 0;
  for (int64_t chunk = 0; chunk < count; chunk += kHeadThreads) {
    const int64_t j = chunk + threadIdx.x;
    const bool mine = j < count && wanted(j);
    const unsigned votes = __ballot_sync(kWholeWarp, mine);
    if (lane == 0) counts[warp] = static_cast<unsigned>(__popc(votes));
    __syncthreads();
    int64_t before = base;
    for (unsigned w = 0; w < kHeadWarps; ++w) {
      if (w < warp) before += counts[w];
      base += counts[w];
    }
    if (mine) put(j, before + __popc(votes & ((1u << lane) - 1)));
    __syncthreads();  // nobody may overwrite the counts before everybody has read them
  }
  return base;
}

}  // namespace
}  // namespace ise_fast
