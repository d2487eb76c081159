// Choosing among many keys by one block: the k-th smallest by radix selection, and the chosen ones in index order.
#pragma once

#include "head.cuh"

namespace ise_fast {
namespace {

constexpr int kBins = 256;

// The bin that holds the k-th of the numbers counted in `bins`, and in k its place there; by each warp. The last bin if
// there are fewer.
__device__ inline int bin_of_kth(const unsigned* bins, int64_t& k) {
  constexpr int kEach = kBins / kWarpSize;
  const int lane = threadIdx.x % kWarpSize;
  int64_t mine = 0;
#pragma unroll
  for (int e = 0; e < kEach; ++e) {  // each lane from another bank
    mine += bins[lane * kEach + (e + lane / (kWarpSize / kEach)) % kEach];
  }
  const int64_t before = warp_exclusive_sum(mine);
  int64_t left = k - before;
  int bin = lane * kEach;
  for (const int last = bin + kEach - 1; bin < last && bins[bin] < left; ++bin) left -= bins[bin];
  const unsigned reached = __ballot_sync(kWholeWarp, before + mine >= k || lane == kWarpSize - 1);
  const int owner = __ffs(static_cast<int>(reached)) - 1;
  k = __shfl_sync(kWholeWarp, left, owner);
  return __shfl_sync(kWholeWarp, bin, owner);
}

// The k-th smallest (k >= 1) of key_of(j), 0 <= j < count, for all threads of the block; kWorstKey if there are fewer
// that are better than it. Keys are all different except kWorstKey. bins: shared memory for kBins numbers.
template <class KeyOf>
__device__ uint64_t kth_key(int64_t count, int64_t k, unsigned* bins, KeyOf key_of) {
  uint64_t prefix = 0, mask = 0;
  for (int shift = 56; shift >= 0; shift -= 8) {
    for (int b = threadIdx.x; b < kBins; b += kHeadThreads) bins[b] = 0;
    __syncthreads();
    for (int64_t j = threadIdx.x; j < count; j += kHeadThreads) {
      const uint64_t key = key_of(j);
      if ((key & mask) == prefix) atomicAdd(bins + (key >> shift & 255), 1u);
    }
    __syncthreads();
    prefix |= static_cast<uint64_t>(bin_of_kth(bins, k)) << shift;
    mask |= uint64_t{255} << shift;
    __syncthreads();  // nobody may clear the bins before everybody has read them
  }
  return prefix;
}

// put(j, place) for every wanted j < count, places 0, 1, ... in ascending order of j. Returns how many, to all threads
// of the block. counts: shared memory for a number a warp. A warp takes a range of the numbers, first to count those
// wanted, then to put them: wanted(j) is asked twice, and put must not change the answers.
template <class Wanted, class Put>
__device__ int64_t compact(int64_t count, unsigned* counts, Wanted wanted, Put put) {
  const unsigned lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  const int64_t each = (count + kHeadThreads - 1) / kHeadThreads * kWarpSize, begin = warp * each,
                end = begin + each < count ? begin + each : count;
  unsigned mine = 0;
  for (int64_t j = begin + lane; j < end; j += kWarpSize) mine += wanted(j);
  mine = warp_sum(mine);
  if (lane == 0) counts[warp] = mine;
  __syncthreads();
  int64_t place = 0, total = 0;
  for (unsigned w = 0; w < kHeadWarps; ++w) {
    if (w < warp) place += counts[w];
    total += counts[w];
  }
  for (int64_t chunk = begin; mine > 0 && chunk < end; chunk += kWarpSize) {
    const bool here = chunk + lane < end && wanted(chunk + lane);
    const unsigned votes = __ballot_sync(kWholeWarp, here);
    if (here) put(chunk + lane, place + __popc(votes & ((1u << lane) - 1)));
    place += __popc(votes);
  }
  __syncthreads();  // nobody may overwrite the counts before everybody has read them, and all is put
  return total;
}

}  // namespace
}  // namespace ise_fast
