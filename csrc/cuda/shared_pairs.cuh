// Pairs of rows of V' within a Jaccard distance: what jaccard_graph and jaccard_pairs have in common.
//
// A block computes one row: for each f of the row, in ascending order, its threads add min(V'(i,f), V'(j,f)) for every
// j of column f; the columns come from a transposed copy of V'. The j of one column differ, so each sum has one writer
// per f, and a barrier between two f keeps the order of the additions: the same bits as on the CPU.
//
// The sums of most rows lie in a hash table in shared memory, whose size follows from the average work of a row. Rows
// that do not fit (hubs) are done afterwards by blocks that keep a dense row in global memory.
#pragma once

#include <tuple>

#include "../math/k_reciprocal.h"
#include "hash.cuh"
#include "jaccard.cuh"

namespace ise_fast {
namespace {

// Rows to pair with others.
struct Blocks {
  Csr rows;        // its columns are rows of `columns`
  Csr columns;     // by column: numbers and weights of the others
  int64_t others;  // how many
  bool same;       // the others are the rows themselves; every row is then paired with itself, whatever the distance
};

constexpr int kHashThreads = 128;
constexpr int kDenseThreads = 256;
constexpr int64_t kFewestSlots = 32, kMostSlots = 4096;  // 32 KB: at least three blocks on a multiprocessor

// What the host waits for.
struct Found {
  unsigned long long pairs;
  unsigned too_big;  // rows beyond the hash table
};

// Pairs found so far, in order of arrival; `count` also counts those beyond `capacity`.
struct Pairs {
  uint64_t* key;
  uint32_t* distance_bits;
  unsigned long long* count;
  unsigned long long capacity;
  int column_bits;
  int64_t first_row;
  bool same;  // whose diagonal is kept
  float bound;
  float least;

  __device__ bool keeps(int64_t i, int64_t j, float s) const {
    return (same && j == i) || (s >= least && jaccard_from_shared(s) <= bound);
  }
  __device__ void put(unsigned long long at, int64_t i, int64_t j, float s) const {
    if (at >= capacity) return;
    key[at] = static_cast<uint64_t>(i - first_row) << column_bits | static_cast<uint64_t>(j);
    distance_bits[at] = __float_as_uint(jaccard_from_shared(s));
  }
};

// Writes the pairs of row i among `n` candidates; candidate(t, j, s) gives the t-th, or false. By the whole block.
template <class Candidate>
__device__ void write_pairs(const Pairs& pairs, int64_t i, int64_t n, const Candidate& candidate) {
  __shared__ unsigned found;
  __shared__ unsigned long long base;
  int64_t j = 0;
  float s = 0.0f;
  if (threadIdx.x == 0) found = 0;
  __syncthreads();
  for (int64_t t = threadIdx.x; t < n; t += blockDim.x) {
    if (candidate(t, j, s) && pairs.keeps(i, j, s)) atomicAdd(&found, 1u);
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    base = atomicAdd(pairs.count, static_cast<unsigned long long>(found));
    found = 0;
  }
  __syncthreads();
  for (int64_t t = threadIdx.x; t < n; t += blockDim.x) {
    if (candidate(t, j, s) && pairs.keeps(i, j, s)) pairs.put(base + atomicAdd(&found, 1u), i, j, s);
  }
  __syncthreads();  // nobody may reset `found` before everybody has counted with it
}

// How many terms the sums of each row have, all rows of [begin, end) together.
__global__ void count_terms(Csr v, Csr columns, int64_t begin, int64_t end, unsigned long long* total) {
  const int64_t i = begin + thread_index();
  if (i >= end) return;
  int64_t terms = 0;
  for (int64_t p = v.indptr[i]; p < v.indptr[i + 1]; ++p) {
    const int64_t f = v.indices[p];
    terms += columns.indptr[f + 1] - columns.indptr[f];
  }
  atomicAdd(total, static_cast<unsigned long long>(terms));
}

// s(i, j) of every j that shares something with row i (and of i itself, if `own`) in a table in shared memory. By a
// whole block; false, for all of its threads, if they do not fit.
__device__ inline bool hash_row(const Csr& v, const Csr& columns, int64_t i, bool own, uint32_t slots, uint32_t* key,
                                float* sum) {
  for (uint32_t slot = threadIdx.x; slot < slots; slot += blockDim.x) {
    key[slot] = HashTable::kEmpty;
    sum[slot] = 0.0f;
  }
  __syncthreads();
  HashTable table(key, slots);
  bool full = own && threadIdx.x == 0 && table.insert(static_cast<uint32_t>(i)) == HashTable::kFull;
  for (int64_t p = v.indptr[i]; p < v.indptr[i + 1]; ++p) {
    const int64_t f = v.indices[p];
    const float weight = v.values[p];
    for (int64_t q = columns.indptr[f] + threadIdx.x; q < columns.indptr[f + 1] && !full; q += blockDim.x) {
      const uint32_t slot = table.insert(static_cast<uint32_t>(columns.indices[q]));
      full = slot == HashTable::kFull;
      if (!full) sum[slot] += Min{}(weight, columns.values[q]);
    }
    if (__syncthreads_or(full)) return false;  // also the barrier between two f
  }
  __syncthreads();
  return true;
}

__global__ void __launch_bounds__(kHashThreads)
    hash_rows(Csr v, Csr columns, uint32_t slots, Pairs pairs, int32_t* too_big, unsigned* too_big_count) {
  DYNAMIC_SHARED(uint32_t, key);
  float* const sum = reinterpret_cast<float*>(key + slots);
  const int64_t i = pairs.first_row + blockIdx.x;
  if (!hash_row(v, columns, i, pairs.same, slots, key, sum)) {
    if (threadIdx.x == 0) too_big[atomicAdd(too_big_count, 1u)] = static_cast<int32_t>(i);
    return;
  }
  write_pairs(pairs, i, slots, [&](int64_t slot, int64_t& j, float& s) {
    j = key[slot];
    s = sum[slot];
    return key[slot] != HashTable::kEmpty;
  });
}

// The rows in `list`; each block has its own `sum` (zeros before and after) and `touched`, `others` long.
__global__ void __launch_bounds__(kDenseThreads)
    dense_rows(Csr v, Csr columns, int64_t others, const int32_t* list, unsigned count, Pairs pairs, float* sums,
               int32_t* touches) {
  __shared__ unsigned touched_count;
  float* const sum = sums + blockIdx.x * others;
  int32_t* const touched = touches + blockIdx.x * others;
  for (unsigned row = blockIdx.x; row < count; row += gridDim.x) {
    const int64_t i = list[row];
    if (threadIdx.x == 0) touched_count = 0;
    __syncthreads();
    for (int64_t p = v.indptr[i]; p < v.indptr[i + 1]; ++p) {
      const int64_t f = v.indices[p];
      const float weight = v.values[p];
      for (int64_t q = columns.indptr[f] + threadIdx.x; q < columns.indptr[f + 1]; q += kDenseThreads) {
        const float term = Min{}(weight, columns.values[q]);
        const int32_t j = columns.indices[q];
        if (!(term > 0)) continue;
        if (sum[j] == 0) touched[atomicAdd(&touched_count, 1u)] = j;
        sum[j] += term;
      }
      __syncthreads();
    }
    const int64_t n = touched_count;
    // A row that shares nothing even with itself still has its diagonal.
    const int64_t alone = pairs.same && sum[i] == 0;
    write_pairs(pairs, i, n + alone, [&](int64_t t, int64_t& j, float& s) {
      j = t < n ? touched[t] : i;
      s = sum[j];
      return true;
    });
    for (int64_t t = threadIdx.x; t < n; t += kDenseThreads) sum[touched[t]] = 0.0f;
    __syncthreads();
  }
}

inline int64_t slots_for(const Blocks& v, int64_t begin, int64_t end, const Tensor& like, cudaStream_t stream) {
  const Scratch<unsigned long long> total(1, like);
  total.fill(0, stream);
  LAUNCH(count_terms, blocks_for(end - begin), kCsrThreads, 0, stream, v.rows, v.columns, begin, end, total.data());
  const int64_t mean = static_cast<int64_t>(read_back(total.data(), stream)) / (end - begin) + 1;
  const auto wanted = static_cast<uint64_t>(std::clamp(std::min(mean, v.others), kFewestSlots, kMostSlots));
  return static_cast<int64_t>(std::bit_ceil(wanted));
}

// The pairs of rows [begin, end). Waits for the stream.
inline CsrTensors pairs_within(const Blocks& v, double eps, int64_t begin, int64_t end, int64_t max_pairs,
                               const Tensor& like, cudaStream_t stream) {
  const int64_t rows = end - begin, n = v.others;
  const auto bound = static_cast<float>(eps);
  if (rows == 0) return compress(nullptr, nullptr, 0, 0, 1, 1.0f, like, stream);

  const int64_t slots = slots_for(v, begin, end, like, stream);
  const Scratch<int32_t> too_big(rows, like);
  const Scratch<Found> found(1, like);
  for (int64_t capacity = 32 * rows;;) {  // a second round only if there are more pairs than that
    const Scratch<uint64_t> key(capacity, like);
    const Scratch<uint32_t> distance_bits(capacity, like);
    const Pairs pairs{key.data(),
                      distance_bits.data(),
                      &found.data()->pairs,
                      static_cast<unsigned long long>(capacity),
                      bits_for(n),
                      begin,
                      v.same,
                      bound,
                      least_shared(bound)};
    found.fill(0, stream);
    LAUNCH(hash_rows, static_cast<unsigned>(rows), kHashThreads, slots * (sizeof(uint32_t) + sizeof(float)), stream,
           v.rows, v.columns, static_cast<uint32_t>(slots), pairs, too_big.data(), &found.data()->too_big);
    Found here = read_back(found.data(), stream);
    if (const unsigned big = here.too_big) {
      const int64_t row_bytes = n * static_cast<int64_t>(sizeof(float) + sizeof(int32_t));
      const int64_t affordable = std::max<int64_t>(1, device_bytes() / 64 / row_bytes);
      halve_on_failure(std::min<int64_t>({big, affordable, 4 * multiprocessors()}), 1, [&](int64_t blocks) {
        const Scratch<float> sums(blocks * n, like);
        const Scratch<int32_t> touched(blocks * n, like);
        sums.fill(0, stream);
        LAUNCH(dense_rows, static_cast<unsigned>(blocks), kDenseThreads, 0, stream, v.rows, v.columns, n,
               too_big.data(), big, pairs, sums.data(), touched.data());
      });
      here = read_back(found.data(), stream);
    }
    const auto total = static_cast<int64_t>(here.pairs);
    check_pair_count(total, max_pairs, eps);  // the first round counts them all and stores few
    if (total <= capacity) {
      return sort_and_compress(key, &distance_bits, total, rows, pairs.column_bits, 1.0f, like, stream);
    }
    capacity = total;
  }
}

}  // namespace
}  // namespace ise_fast
