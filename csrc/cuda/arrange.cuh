// Rows of a sparse matrix whose entries lie side by side, but neither the rows nor the entries of one in order.
#pragma once

#include "csr.cuh"

namespace ise_fast {
namespace {

// Where the entries of a row lie, and how many.
struct RowPlaces {
  int64_t* begin;
  int64_t* count;  // rows + 1
};

// Entries with keys `row << column_bits | column`, no two of them equal.
struct ScatteredRows {
  const uint64_t* key;
  const uint32_t* value_bits;
  RowPlaces places;
};

// A row of more entries takes longer by counting than its share of a sort.
constexpr int64_t kMostRanked = 512;

// `most` becomes at least `value`. Most who come late find that it is.
__device__ inline void raise_to(unsigned long long* most, int64_t value) {
  const auto mine = static_cast<unsigned long long>(value);
  if (load_relaxed(most) < mine) atomicMax(most, mine);
}

// How many of `count` keys come before `mine`.
template <class Key>
__device__ int32_t rank_among(const Key* key, int32_t count, Key mine) {
  int32_t rank = 0;
  for (int32_t t = 0; t < count; ++t) rank += key[t] < mine;
  return rank;
}

// A warp a row: each entry to where the number of smaller columns in its row puts it.
__global__ void place_by_rank(ScatteredRows from, const int64_t* indptr, int64_t rows, uint64_t column_mask,
                              int32_t* index, float* value) {
  const int64_t r = static_cast<int64_t>(blockIdx.x) * kCsrWarps + threadIdx.x / kWarpSize;
  if (r >= rows) return;
  const int64_t begin = from.places.begin[r], to = indptr[r];
  const auto count = static_cast<int32_t>(indptr[r + 1] - to);
  for (int32_t e = threadIdx.x % kWarpSize; e < count; e += kWarpSize) {
    const uint64_t key = from.key[begin + e];
    const int64_t at = to + rank_among(from.key + begin, count, key);
    index[at] = static_cast<int32_t>(key & column_mask);
    value[at] = __uint_as_float(from.value_bits[begin + e]);
  }
}

// Sorted entries without their rows.
__global__ void place_sorted(const uint64_t* key, const uint32_t* value_bits, int64_t n, uint64_t column_mask,
                             int32_t* index, float* value) {
  const int64_t p = thread_index();
  if (p >= n) return;
  index[p] = static_cast<int32_t>(key[p] & column_mask);
  value[p] = __uint_as_float(value_bits[p]);
}

// Rows 0 .. rows - 1 with ascending columns, `total` entries, of one row at most `longest`. The keys of all rows lie in
// [0, total), in any order.
inline CsrTensors arranged_rows(const ScatteredRows& from, int64_t rows, int64_t total, int64_t longest,
                                int column_bits, const Tensor& like, cudaStream_t stream) {
  CsrTensors arranged{device_empty(like, {rows + 1}, ScalarType::Long), device_empty(like, {total}, ScalarType::Int),
                      device_empty(like, {total}, ScalarType::Float)};
  auto& [indptr, indices, values] = arranged;
  auto* offset = indptr.mutable_data_ptr<int64_t>();
  fill_bytes(from.places.count + rows, 0, sizeof(int64_t), stream);  // what the sum over all rows is called for
  exclusive_sum(from.places.count, offset, rows + 1, like, stream);
  if (total == 0) return arranged;
  auto* index = indices.mutable_data_ptr<int32_t>();
  auto* value = values.mutable_data_ptr<float>();
  const uint64_t mask = (uint64_t{1} << column_bits) - 1;
  if (longest <= at_once(kMostRanked)) {
    LAUNCH(place_by_rank, blocks_for(rows, kCsrWarps), kCsrThreads, 0, stream, from, offset, rows, mask, index, value);
    return arranged;
  }
  const Scratch<uint64_t> key(total, like);
  const Scratch<uint32_t> value_bits(total, like);
  sort_pairs(from.key, key.data(), from.value_bits, value_bits.data(), total, like, stream, 0,
             std::min(64, column_bits + bits_for(rows)));
  LAUNCH(place_sorted, blocks_for(total), kCsrThreads, 0, stream, key.data(), value_bits.data(), total, mask, index,
         value);
  return arranged;
}

}  // namespace
}  // namespace ise_fast
