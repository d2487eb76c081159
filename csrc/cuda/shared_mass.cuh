// Hash tables of the mass that a row of V' shares with others.
//
// For each f of a row, in ascending order, threads add min(V'(i,f), V'(j,f)) for every j of column f; the columns come
// from a transposed copy of V'. The j of one column differ, so each sum has one writer per f, and a barrier between two
// f keeps the order of the additions: the same bits as on the CPU.
#pragma once

#include "hash.cuh"
#include "jaccard.cuh"

namespace ise_fast {
namespace {

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

// The same by a warp, whose lanes look up 32 columns at a time.
__device__ inline bool hash_row_by_warp(const Csr& v, const Csr& columns, int64_t i, bool own, uint32_t slots,
                                        uint32_t* key, float* sum) {
  const int lane = threadIdx.x % kWarpSize;
  for (uint32_t slot = lane; slot < slots; slot += kWarpSize) {
    key[slot] = HashTable::kEmpty;
    sum[slot] = 0.0f;
  }
  __syncwarp();
  HashTable table(key, slots);
  bool full = own && lane == 0 && table.insert(static_cast<uint32_t>(i)) == HashTable::kFull;
  const int64_t end = v.indptr[i + 1];
  for (int64_t start = v.indptr[i]; start < end; start += kWarpSize) {
    const bool mine = start + lane < end;
    const int64_t f = mine ? v.indices[start + lane] : 0;
    const float weight = mine ? v.values[start + lane] : 0.0f;
    const int64_t begin = mine ? columns.indptr[f] : 0;
    const auto size = static_cast<int32_t>(mine ? columns.indptr[f + 1] - begin : 0);
    for (int t = 0; t < kWarpSize && start + t < end; ++t) {
      const float least = __shfl_sync(kWholeWarp, weight, t);
      const int64_t from = __shfl_sync(kWholeWarp, begin, t);
      const int32_t count = __shfl_sync(kWholeWarp, size, t);
      const int32_t* const other = columns.indices + from;
      const float* const theirs = columns.values + from;
      for (int32_t q = lane; q < count && !full; q += kWarpSize) {
        const uint32_t slot = table.insert(static_cast<uint32_t>(other[q]));
        full = slot == HashTable::kFull;
        if (!full) sum[slot] += Min{}(least, theirs[q]);
      }
      __syncwarp();  // between two f
    }
    if (__any_sync(kWholeWarp, full)) return false;
  }
  __syncwarp();  // an empty row has its own key
  return !__any_sync(kWholeWarp, full);
}

}  // namespace
}  // namespace ise_fast
