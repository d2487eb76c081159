// Rows of a sparse matrix out of sets that fit into shared memory, a warp a row: counted first, so that the result
// takes as much memory as it has entries, then made once more and written in ascending order of columns.
//
// What the sets are made of is a Source: each(i, visit) calls visit(mine, column, position) by all lanes together, for
// the lanes that are `mine`; all that is visited of row i, columns of at least 0, in any order. A weighted source has
// weight(position), each column at most once in a visit: what a column has in several is added in their order.
#pragma once

#include <utility>

#include "arrange.cuh"
#include "hash.cuh"
#include "reciprocal.cuh"

namespace ise_fast {
namespace {

constexpr int64_t kMostInSet = 3583;      // set_slots of it is 4096: with weights and columns 47 KB
constexpr int64_t kSetBytes = 32 * 1024;  // of a block, where a warp takes less

// What the host waits for.
struct RowNotes {
  unsigned long long total, longest;  // entries of all rows, of one row
  unsigned long long from_bad;        // see narrow_neighbours
};

// A warp's table of `slots`, cleared; all of them may be tried.
__device__ inline HashTable empty_table(uint32_t* key, uint32_t slots) {
  for (uint32_t slot = threadIdx.x % kWarpSize; slot < slots; slot += kWarpSize) key[slot] = HashTable::kEmpty;
  __syncwarp();
  return HashTable(key, slots, slots);
}

// Does the half set of the r-th member of R(i) join R*(i)? A warp a row, with R(i) in its table. `full` has the lists
// of some rows, `half` those of all.
template <class Half>
__global__ void join_half_sets(Lists full, Half half, int64_t rows, int64_t k1, uint32_t slots, uint8_t* joined) {
  DYNAMIC_SHARED(uint32_t, shared);
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * (blockDim.x / kWarpSize) + warp;
  if (i >= rows) return;
  HashTable members = empty_table(shared + slots * warp, slots);
  const int32_t* const member = full.items + i * full.stride;
  const int32_t count = full.sizes[i];
  for (int32_t r = lane; r < count; r += kWarpSize) members.insert(static_cast<uint32_t>(member[r]));
  __syncwarp();
  for (int32_t r = 0; r < count; ++r) {
    const int32_t c = member[r];
    int32_t size = 0, common = 0;
    for (int32_t start = 0, end = half.slots(c); start < end; start += kWarpSize) {
      const bool has = start + lane < end && half.has(c, start + lane);
      const bool shared_one =
          has && members.find(static_cast<uint32_t>(half.item(c, start + lane))) != HashTable::kFull;
      size += __popc(__ballot_sync(kWholeWarp, has));
      common += __popc(__ballot_sync(kWholeWarp, shared_one));
    }
    if (lane == 0) joined[i * k1 + r] = joins(common, size);
  }
}

// R(i) and the half sets that join it.
template <class Half>
struct StarRows {
  static constexpr bool kWeighted = false;
  Lists full;
  Half half;
  int64_t k1;
  const uint8_t* joined;

  template <class Visit>
  __device__ void each(int64_t i, const Visit& visit) const {
    const int lane = threadIdx.x % kWarpSize;
    const int32_t members = full.sizes[i];
    for (int32_t start = 0; start < members; start += kWarpSize) {
      const int32_t r = start + lane;
      const bool mine = r < members;
      const int32_t c = mine ? full.items[i * full.stride + r] : 0;
      const int32_t size = mine && joined[i * k1 + r] ? half.slots(c) : 0;
      visit(mine, c, 0);
      for (unsigned left = __ballot_sync(kWholeWarp, size > 0); left != 0; left &= left - 1) {
        const int t = __ffs(static_cast<int>(left)) - 1;
        const int32_t member = __shfl_sync(kWholeWarp, c, t), slots = __shfl_sync(kWholeWarp, size, t);
        for (int32_t from = 0; from < slots; from += kWarpSize) {
          const bool wanted = from + lane < slots && half.has(member, from + lane);
          visit(wanted, wanted ? half.item(member, from + lane) : 0, 0);
        }
      }
    }
  }
  __device__ float weight(int64_t) const { return 0.0f; }
};

// The k2 rows of v behind row i, in rank order.
struct ExpandedRows {
  static constexpr bool kWeighted = true;
  const int32_t* nn;
  int64_t k1, k2;
  Csr v;

  template <class Visit>
  __device__ void each(int64_t i, const Visit& visit) const {
    const int lane = threadIdx.x % kWarpSize;
    for (int64_t start = 0; start < k2; start += kWarpSize) {
      const bool mine = start + lane < k2;
      const int32_t j = mine ? nn[i * k1 + start + lane] : 0;
      const int64_t begin = mine ? v.indptr[j] : 0;
      const auto size = static_cast<int32_t>(mine ? v.indptr[j + 1] - begin : 0);
      for (int t = 0; t < kWarpSize && start + t < k2; ++t) {
        const int64_t first = __shfl_sync(kWholeWarp, begin, t);
        const int32_t count = __shfl_sync(kWholeWarp, size, t);
        for (int32_t from = 0; from < count; from += kWarpSize) {
          const bool wanted = from + lane < count;
          visit(wanted, wanted ? v.indices[first + from + lane] : 0, first + from + lane);
        }
      }
    }
  }
  __device__ float weight(int64_t p) const { return v.values[p]; }
};

template <class Source>
__global__ void count_sets(Source source, int64_t rows, uint32_t slots, int64_t* count, RowNotes* notes) {
  DYNAMIC_SHARED(uint32_t, shared);
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * (blockDim.x / kWarpSize) + warp;
  if (i >= rows) return;
  HashTable table = empty_table(shared + slots * warp, slots);
  int64_t size = 0;
  source.each(i, [&](bool mine, int32_t column, int64_t) {
    bool added = false;
    if (mine) table.insert(static_cast<uint32_t>(column), added);
    size += added;
  });
  size = warp_sum(size);
  if (lane != 0) return;
  count[i] = size;
  atomicAdd(&notes->total, static_cast<unsigned long long>(size));
  raise_to(&notes->longest, size);
}

// `most`: columns of a row. A weighted source's sums are divided once, at the end.
template <class Source>
__global__ void write_sets(Source source, int64_t rows, uint32_t slots, uint32_t most, float divisor,
                           const int64_t* indptr, int32_t* index, float* value) {
  DYNAMIC_SHARED(uint32_t, shared);
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * (blockDim.x / kWarpSize) + warp;
  if (i >= rows) return;
  uint32_t* const key = shared + (slots * (Source::kWeighted ? 2 : 1) + most) * warp;
  uint32_t* const column_of = key + slots;
  float* const sum = reinterpret_cast<float*>(column_of + most);
  HashTable table = empty_table(key, slots);
  int32_t size = 0;
  source.each(i, [&](bool mine, int32_t column, int64_t position) {
    bool added = false;
    if (mine) {
      const uint32_t slot = table.insert(static_cast<uint32_t>(column), added);
      if constexpr (Source::kWeighted) {
        const float weight = source.weight(position);
        sum[slot] = added ? weight : sum[slot] + weight;
      }
    }
    const unsigned votes = __ballot_sync(kWholeWarp, added);
    if (added) column_of[size + __popc(votes & ((1u << lane) - 1))] = static_cast<uint32_t>(column);
    size += __popc(votes);
    __syncwarp();  // the next visit may add to what another lane has written
  });
  const int64_t begin = indptr[i];
  for (int32_t e = lane; e < size; e += kWarpSize) {
    const uint32_t column = column_of[e];
    const int64_t at = begin + rank_among(column_of, size, column);
    index[at] = static_cast<int32_t>(column);
    if constexpr (Source::kWeighted) value[at] = sum[table.find(column)] / divisor;
  }
}

// Slots for `most` keys, and warps of a block, each with `bytes` of shared memory.
inline uint32_t set_slots(int64_t most) {
  return static_cast<uint32_t>(std::bit_ceil(static_cast<uint64_t>(most + most / 7 + 1)));
}
inline int set_warps(int64_t bytes) {
  return static_cast<int>(std::clamp<int64_t>(kSetBytes / bytes, 1, kCsrWarps));
}

// The rows of a source, of at most `most` <= kMostInSet columns each, and how many the longest has; values are left
// unset where it has no weights. notes, judge: see joined_sets. Waits for the stream.
template <class Source, class Judge>
std::pair<CsrTensors, int64_t> row_sets(const Source& source, int64_t rows, int64_t most, float divisor,
                                        const Scratch<RowNotes>& notes, const Judge& judge, const Tensor& like,
                                        cudaStream_t stream) {
  Tensor indptr = device_empty(like, {rows + 1}, ScalarType::Long);
  auto* offset = indptr.mutable_data_ptr<int64_t>();
  const uint32_t slots = set_slots(most);
  const int64_t bytes = sizeof(uint32_t) * slots;
  const int warps = set_warps(bytes);
  fill_bytes(offset + rows, 0, sizeof(int64_t), stream);
  LAUNCH(count_sets<Source>, blocks_for(rows, warps), warps * kWarpSize, bytes * warps, stream, source, rows, slots,
         offset, notes.data());
  exclusive_sum(offset, offset, rows + 1, like, stream);
  const RowNotes found = read_back(notes.data(), stream);
  judge(found);

  const auto total = static_cast<int64_t>(found.total), longest = static_cast<int64_t>(found.longest);
  Tensor indices = device_empty(like, {total}, ScalarType::Int),
         values = device_empty(like, {total}, ScalarType::Float);
  const uint32_t enough = set_slots(longest);
  const int64_t needed = sizeof(uint32_t) * (enough * (Source::kWeighted ? 2 : 1) + longest);
  const int many = set_warps(needed);
  LAUNCH(write_sets<Source>, blocks_for(rows, many), many * kWarpSize, needed * many, stream, source, rows, enough,
         static_cast<uint32_t>(longest), divisor, offset, indices.mutable_data_ptr<int32_t>(),
         values.mutable_data_ptr<float>());
  return {CsrTensors{indptr, indices, values}, longest};
}

}  // namespace
}  // namespace ise_fast
