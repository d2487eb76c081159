// The k smallest of many 64-bit keys, found by one block in one pass.
//
// Keys below the current threshold are appended to a buffer in shared memory, in any order; when the buffer might
// overflow it is sorted, cut to k, and the k-th key becomes the threshold. The first threshold comes from a survey of
// some of the keys: of the smallest that each thread has seen, the k-th is no less than the k-th of all, and little
// more. Then almost every key fails the comparison, and few are ever sorted: the pass costs little more than reading
// the keys. Keys are (value, index) pairs (math/ordered_key.h), all different: the result is one set in one order,
// whatever the order of arrival.
#pragma once

#include <cstdint>

#include "../math/ordered_key.h"
#include "launch.h"

namespace ise_fast {

// Sorts a power-of-two number of keys in shared memory, ascending. All threads of a one-dimensional block call it; a
// barrier closes it, but the caller must have one between writing the keys and this.
__device__ inline void block_sort(uint64_t* keys, int count) {
  for (int run = 2; run <= count; run *= 2) {
    for (int apart = run / 2; apart > 0; apart /= 2) {
      for (int i = threadIdx.x; i < count / 2; i += blockDim.x) {
        const int low = 2 * i - (i & (apart - 1)), high = low + apart;  // the i-th pair at this distance
        const bool ascending = (low & run) == 0;
        const uint64_t a = keys[low], b = keys[high];
        if ((b < a) == ascending) {
          keys[low] = b;
          keys[high] = a;
        }
      }
      __syncthreads();
    }
  }
}

// kCapacity: a power of two, at least k + kThreads * (keys a thread offers at once).
template <int kThreads, int kCapacity>
class BlockSmallest {
public:
  struct Storage {  // in shared memory
    uint64_t key[kCapacity];
    unsigned filled;
  };

  __device__ BlockSmallest(Storage& storage, int k) : storage_(storage), k_(k) {
    if (threadIdx.x == 0) storage_.filled = 0;
    __syncthreads();
  }

  // All threads call it together, before they offer anything: `smallest` is the smallest of some keys, of each thread
  // other ones, which are offered like the rest. For k <= kThreads.
  __device__ void survey(uint64_t smallest) {
    storage_.key[threadIdx.x] = smallest;
    __syncthreads();
    block_sort(storage_.key, kThreads);
    const uint64_t bound = storage_.key[k_ - 1];
    if (bound != kWorstKey) threshold_ = bound + 1;
    __syncthreads();  // nobody may append before everybody has read the bound
  }

  // All threads call it together, each with `kKeys` keys (the more, the fewer barriers a key); kWorstKey stands for
  // none.
  template <int kKeys>
  __device__ void offer(const uint64_t (&keys)[kKeys]) {
    static_assert(kThreads * kKeys < kCapacity, "a single offer would fill the buffer");
    for (int i = 0; i < kKeys; ++i) {
      if (keys[i] < threshold_) storage_.key[atomicAdd(&storage_.filled, 1u)] = keys[i];
    }
    __syncthreads();
    filled_ = storage_.filled;
    __syncthreads();  // nobody may append before everybody has read the count
    if (filled_ + kThreads * kKeys > kCapacity) shrink();
  }

  // Afterwards result()[0 .. k) is ascending, kWorstKey where fewer keys came. The last call.
  __device__ void finish() { shrink(); }
  __device__ const uint64_t* result() const { return storage_.key; }

private:
  __device__ void shrink() {
    int sorted = 2;
    while (sorted < filled_ || sorted < k_) sorted *= 2;
    for (int i = filled_ + threadIdx.x; i < sorted; i += kThreads) storage_.key[i] = kWorstKey;
    __syncthreads();
    block_sort(storage_.key, sorted);
    threshold_ = storage_.key[k_ - 1];
    if (filled_ > k_) filled_ = k_;
    if (threadIdx.x == 0) storage_.filled = filled_;
    __syncthreads();
  }

  Storage& storage_;
  const int k_;
  int filled_ = 0;
  uint64_t threshold_ = kWorstKey;
};

}  // namespace ise_fast
