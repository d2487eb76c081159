// All entries of a symmetric graph from those (i, j) with j >= i: row j is what the rows before it have in column j, in
// their order, then what it has itself. The first are found by a sort by column, which keeps the order of the rows.
#pragma once

#include <vector>

#include "csr.cuh"

namespace ise_fast {
namespace {

constexpr int64_t kMirrored = 1 << 26;  // entries that are sorted at once: 2 GiB with their copies

// Rows [first, first + count) of the half, one after the other.
struct Piece {
  int64_t first, count;
  Tensor indices, values;
};

// How many entries a row has in all.
__global__ void add_counts(const int64_t* half, const int64_t* mirrored, int64_t* counts, int64_t n) {
  const int64_t i = thread_index();
  if (i <= n) counts[i] = i < n ? half[i + 1] - half[i] + mirrored[i] : 0;
}

// The entries of a piece: into their rows, and but for the diagonal, which comes first in its row, among those to sort;
// a warp a row. half: offsets of the rows of the half, mirrored: what the rows before have in column i.
__global__ void place_half(const int64_t* half, const int64_t* mirrored, const int64_t* indptr, int64_t first,
                           int64_t count, const int32_t* from_index, const float* from_value, int32_t* indices,
                           float* values, uint64_t* key, uint32_t* value_bits) {
  const int64_t r = static_cast<int64_t>(blockIdx.x) * kCsrWarps + threadIdx.x / kWarpSize, i = first + r;
  if (r >= count) return;
  const int64_t begin = half[i] - half[first], size = half[i + 1] - half[i], to = indptr[i] + mirrored[i];
  for (int64_t e = threadIdx.x % kWarpSize; e < size; e += kWarpSize) {
    const int32_t j = from_index[begin + e];
    const float value = from_value[begin + e];
    indices[to + e] = j;
    values[to + e] = value;
    if (e == 0) continue;
    const int64_t at = begin - r + e - 1;
    key[at] = static_cast<uint64_t>(j) << 32 | static_cast<uint64_t>(i);
    value_bits[at] = __float_as_uint(value);
  }
}

// The first of n keys, sorted by their upper halves, that is of row j.
__device__ inline int64_t begin_of_row(const uint64_t* key, int64_t n, uint64_t j) {
  int64_t low = 0, high = n;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (key[middle] >> 32 < j) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// Sorted entries into their rows, from next[j] on; a thread an entry.
__global__ void place_mirrored(const uint64_t* key, const uint32_t* value_bits, int64_t n, const int64_t* next,
                               int32_t* indices, float* values) {
  const int64_t p = thread_index();
  if (p >= n) return;
  const uint64_t j = key[p] >> 32;
  const int64_t to = next[j] + p - begin_of_row(key, n, j);
  indices[to] = static_cast<int32_t>(key[p] & 0xffffffffu);
  values[to] = __uint_as_float(value_bits[p]);
}

// next[j] moves past the entries of row j; the thread of its last one does it.
__global__ void move_past(const uint64_t* key, int64_t n, int64_t* next) {
  const int64_t p = thread_index();
  if (p >= n) return;
  const uint64_t j = key[p] >> 32;
  if (p == n - 1 || key[p + 1] >> 32 != j) next[j] += p + 1 - begin_of_row(key, n, j);
}

// half [n + 1]: offsets of the rows of the half, `pieces` those rows in order, `total` their entries, each row's first
// one on the diagonal; mirrored [n + 1]: entries (i, j) with i < j by j. The pieces are given back on the way.
inline CsrTensors mirror(const Tensor& half, const Tensor& mirrored, std::vector<Piece>& pieces, int64_t total,
                         cudaStream_t stream) {
  const int64_t n = half.size(0) - 1, all = 2 * total - n;
  const auto *offset = half.const_data_ptr<int64_t>(), *before = mirrored.const_data_ptr<int64_t>();
  Tensor indptr = device_empty(half, {n + 1}, ScalarType::Long);
  auto* to = indptr.mutable_data_ptr<int64_t>();
  LAUNCH(add_counts, blocks_for(n + 1), kCsrThreads, 0, stream, offset, before, to, n);
  exclusive_sum(to, to, n + 1, half, stream);
  Tensor next = device_empty(half, {n + 1}, ScalarType::Long);
  torch::stable::copy_(next, indptr);
  Tensor indices = device_empty(half, {all}, ScalarType::Int), values = device_empty(half, {all}, ScalarType::Float);
  auto* index = indices.mutable_data_ptr<int32_t>();
  auto* value = values.mutable_data_ptr<float>();

  const auto entries = [](const Piece& piece) { return piece.indices.size(0) - piece.count; };
  for (size_t begin = 0, end = 0; begin < pieces.size(); begin = end) {
    int64_t size = 0;
    do {
      size += entries(pieces[end++]);
    } while (end < pieces.size() && size + entries(pieces[end]) <= at_once(kMirrored));
    const Scratch<uint64_t> key(size, half), sorted(size, half);
    const Scratch<uint32_t> bits(size, half), sorted_bits(size, half);
    for (int64_t at = 0; begin < end; ++begin) {
      Piece& piece = pieces[begin];
      LAUNCH(place_half, blocks_for(piece.count, kCsrWarps), kCsrThreads, 0, stream, offset, before, to, piece.first,
             piece.count, piece.indices.const_data_ptr<int32_t>(), piece.values.const_data_ptr<float>(), index, value,
             key.data() + at, bits.data() + at);
      at += entries(piece);
      piece.indices = piece.values = Tensor();
    }
    if (size == 0) continue;
    sort_pairs(key.data(), sorted.data(), bits.data(), sorted_bits.data(), size, half, stream, 32, 32 + bits_for(n));
    LAUNCH(place_mirrored, blocks_for(size), kCsrThreads, 0, stream, sorted.data(), sorted_bits.data(), size,
           next.const_data_ptr<int64_t>(), index, value);
    if (end == pieces.size()) break;
    LAUNCH(move_past, blocks_for(size), kCsrThreads, 0, stream, sorted.data(), size, next.mutable_data_ptr<int64_t>());
  }
  return {indptr, indices, values};
}

}  // namespace
}  // namespace ise_fast
