// Pairs of rows of V' within a Jaccard distance: what jaccard_graph and jaccard_pairs have in common.
//
// The sums of most rows lie in a small hash table in shared memory, a warp a row (shared_mass.cuh). Rows that do not
// fit there are done by blocks with a large table, and hubs that do not fit there either by blocks that keep a dense
// row in global memory. The pairs of a row are written side by side and brought into order at the end (arrange.cuh).
#pragma once

#include <tuple>

#include "../math/k_reciprocal.h"
#include "arrange.cuh"
#include "shared_mass.cuh"

namespace ise_fast {
namespace {

// Rows to pair with others.
struct Blocks {
  Csr rows;        // its columns are rows of `columns`
  Csr columns;     // by column: numbers and weights of the others
  int64_t others;  // how many
  bool same;       // the others are the rows themselves; every row is then paired with itself, whatever the distance
  int64_t nnz;     // entries of the rows
  Doubt doubt;     // about them
};

constexpr int kHashThreads = 128;
constexpr int kDenseThreads = 256;
constexpr int64_t kManySlots = 4096;  // 32 KB: six blocks on a multiprocessor
constexpr int64_t kFewestSlots = 64, kMostSlots = 2048, kSlotsOfBlock = 4096;

// What the host waits for.
struct Found {
  unsigned long long pairs, longest;  // of all rows, of one row
  unsigned big, huge;                 // rows beyond the small table, and beyond the large one
  csr::Findings findings;
};

// Pairs found so far, in order of arrival, those of a row side by side; `found` also counts those beyond `capacity`.
struct Pairs {
  uint64_t* key;
  uint32_t* distance_bits;
  RowPlaces places;
  Found* found;
  unsigned long long capacity;
  int column_bits;
  int64_t first_row;
  bool same;  // whose diagonal is kept
  float bound;
  float least;

  __device__ bool keeps(int64_t i, int64_t j, float s) const {
    return (same && j == i) || (s >= least && jaccard_from_shared(s) <= bound);
  }
  // Where the `count` pairs of row i go; by one thread.
  __device__ unsigned long long reserve(int64_t i, int64_t count) const {
    const auto base = atomicAdd(&found->pairs, static_cast<unsigned long long>(count));
    places.begin[i - first_row] = static_cast<int64_t>(base);
    places.count[i - first_row] = count;
    raise_to(&found->longest, count);
    return base;
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
    base = pairs.reserve(i, found);
    found = 0;
  }
  __syncthreads();
  for (int64_t t = threadIdx.x; t < n; t += blockDim.x) {
    if (candidate(t, j, s) && pairs.keeps(i, j, s)) pairs.put(base + atomicAdd(&found, 1u), i, j, s);
  }
  __syncthreads();  // nobody may reset `found` before everybody has counted with it
}

// A warp a row; rows beyond `slots` are listed in `big`. Found.findings are those of the doubt.
__global__ void __launch_bounds__(kHashThreads)
    hash_rows(Blocks v, int64_t rows, uint32_t slots, Pairs pairs, int32_t* big) {
  DYNAMIC_SHARED(uint32_t, shared);
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  const int64_t r = static_cast<int64_t>(blockIdx.x) * (blockDim.x / kWarpSize) + warp, i = pairs.first_row + r;
  if (r >= rows) return;
  if (r == 0 && lane == 0 && v.doubt.findings != nullptr) pairs.found->findings = *v.doubt.findings;
  if (!v.doubt.lifted()) return;
  uint32_t* const key = shared + 2 * slots * warp;
  float* const sum = reinterpret_cast<float*>(key + slots);
  if (!hash_row_by_warp(v.rows, v.columns, i, pairs.same, slots, key, sum)) {
    if (lane == 0) big[atomicAdd(&pairs.found->big, 1u)] = static_cast<int32_t>(i);
    return;
  }
  int64_t kept = 0;
  for (uint32_t slot = lane; slot < slots; slot += kWarpSize) {
    kept += key[slot] != HashTable::kEmpty && pairs.keeps(i, key[slot], sum[slot]);
  }
  const int64_t before = warp_exclusive_sum(kept), all = warp_sum(kept);
  unsigned long long at = lane == 0 ? pairs.reserve(i, all) : 0;
  at = __shfl_sync(kWholeWarp, at, 0) + before;
  for (uint32_t slot = lane; slot < slots; slot += kWarpSize) {
    if (key[slot] != HashTable::kEmpty && pairs.keeps(i, key[slot], sum[slot])) {
      pairs.put(at++, i, key[slot], sum[slot]);
    }
  }
}

// The rows in `big`, by blocks; those that do not fit either are listed in `huge`.
__global__ void __launch_bounds__(kHashThreads)
    hash_big_rows(Blocks v, uint32_t slots, Pairs pairs, const int32_t* big, int32_t* huge) {
  DYNAMIC_SHARED(uint32_t, key);
  float* const sum = reinterpret_cast<float*>(key + slots);
  for (unsigned row = blockIdx.x, rows = pairs.found->big; row < rows; row += gridDim.x) {
    const int64_t i = big[row];
    if (hash_row(v.rows, v.columns, i, pairs.same, slots, key, sum)) {
      write_pairs(pairs, i, slots, [&](int64_t slot, int64_t& j, float& s) {
        j = key[slot];
        s = sum[slot];
        return key[slot] != HashTable::kEmpty;
      });
    } else if (threadIdx.x == 0) {
      huge[atomicAdd(&pairs.found->huge, 1u)] = static_cast<int32_t>(i);
    }
    __syncthreads();  // nobody may clear the table before everybody has left it
  }
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

// Slots of the small table: eight for an entry of a mean row, which shares its columns with a few times as many others
// as it has entries.
inline uint32_t slots_for(const Blocks& v) {
  const int64_t mean = v.nnz / std::max<int64_t>(v.rows.rows, 1) + 1;
  const auto wanted = static_cast<uint64_t>(std::clamp(8 * mean, kFewestSlots, kMostSlots));
  return static_cast<uint32_t>(std::bit_ceil(wanted));
}

// Rows beyond both tables.
inline void pair_huge_rows(const Blocks& v, const Scratch<int32_t>& huge, unsigned count, const Pairs& pairs,
                           const Tensor& like, cudaStream_t stream) {
  const int64_t n = v.others, row_bytes = n * static_cast<int64_t>(sizeof(float) + sizeof(int32_t));
  const int64_t affordable = std::max<int64_t>(1, device_bytes() / 64 / row_bytes);
  halve_on_failure(std::min<int64_t>({count, affordable, 4 * multiprocessors()}), 1, [&](int64_t blocks) {
    const Scratch<float> sums(blocks * n, like);
    const Scratch<int32_t> touched(blocks * n, like);
    sums.fill(0, stream);
    LAUNCH(dense_rows, static_cast<unsigned>(blocks), kDenseThreads, 0, stream, v.rows, v.columns, n, huge.data(),
           count, pairs, sums.data(), touched.data());
  });
}

// The pairs of rows [begin, end). Waits for the stream.
inline CsrTensors pairs_within(const Blocks& v, double eps, int64_t begin, int64_t end, int64_t max_pairs,
                               const Tensor& like, cudaStream_t stream) {
  const int64_t rows = end - begin;
  const auto bound = static_cast<float>(eps);
  if (rows == 0) {
    if (v.doubt.findings) judge_csr(read_back(v.doubt.findings, stream), v.rows, v.columns.rows, v.nnz, stream);
    return compress(nullptr, nullptr, 0, 0, 1, 1.0f, like, stream);
  }

  const uint32_t slots = slots_for(v);
  const auto many = static_cast<uint32_t>(std::bit_floor(static_cast<uint64_t>(at_once(kManySlots))));
  const auto warps = static_cast<int>(std::clamp<int64_t>(kSlotsOfBlock / slots, 1, kHashThreads / kWarpSize));
  const Scratch<int32_t> big(rows, like), huge(rows, like);
  const Scratch<int64_t> place(rows, like), count(rows + 1, like);
  const Scratch<Found> found(1, like);
  for (int64_t capacity = 32 * rows;;) {  // a second round only if there are more pairs than that
    const Scratch<uint64_t> key(capacity, like);
    const Scratch<uint32_t> distance_bits(capacity, like);
    const Pairs pairs{key.data(),
                      distance_bits.data(),
                      {place.data(), count.data()},
                      found.data(),
                      static_cast<unsigned long long>(capacity),
                      bits_for(v.others),
                      begin,
                      v.same,
                      bound,
                      least_shared(bound)};
    found.fill(0, stream);
    LAUNCH(hash_rows, blocks_for(rows, warps), warps * kWarpSize, 2 * sizeof(uint32_t) * slots * warps, stream, v, rows,
           slots, pairs, big.data());
    LAUNCH(hash_big_rows, static_cast<unsigned>(std::min<int64_t>(rows, 6 * multiprocessors())), kHashThreads,
           2 * sizeof(uint32_t) * many, stream, v, many, pairs, big.data(), huge.data());
    Found here = read_back(found.data(), stream);
    if (v.doubt.findings) judge_csr(here.findings, v.rows, v.columns.rows, v.nnz, stream);
    if (here.huge) {
      pair_huge_rows(v, huge, here.huge, pairs, like, stream);
      here = read_back(found.data(), stream);
    }
    const auto total = static_cast<int64_t>(here.pairs);
    check_pair_count(total, max_pairs, eps);  // the first round counts them all and stores few
    if (total <= capacity) {
      return arranged_rows({key.data(), distance_bits.data(), pairs.places}, rows, total,
                           static_cast<int64_t>(here.longest), pairs.column_bits, like, stream);
    }
    capacity = total;
  }
}

}  // namespace
}  // namespace ise_fast
