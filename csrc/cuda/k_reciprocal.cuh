// The steps of the k-reciprocal encoding that re-ranking shares; the definitions are in csrc/cpu/k_reciprocal.h.
//
// Sets and query expansion are written as unordered (row, column) keys, sorted and compressed (csr.cuh): any k1 and k2,
// no limit on the size of a set, work spread evenly whatever the hubs. Rows go in ranges that keep the scratch bounded.
#pragma once

#include <tuple>

#include "../math/k_reciprocal.h"
#include "csr_ranges.cuh"

namespace ise_fast {
namespace {

using Csr = DeviceCsr<int32_t, float>;

// One short list per row.
struct Lists {
  int32_t* items;
  int32_t* sizes;
  int64_t stride;

  __device__ bool contains(int64_t i, int32_t j) const {
    for (int32_t s = 0; s < sizes[i]; ++s) {
      if (items[i * stride + s] == j) return true;
    }
    return false;
  }
};

// Neighbours in 32 bits; the position of the first one that is no row goes to `first_bad`.
__global__ void narrow_neighbours(const int64_t* wide, int64_t n, int64_t rows, int32_t* narrow,
                                  unsigned long long* first_bad) {
  const int64_t p = thread_index();
  if (p >= n) return;
  const bool good = 0 <= wide[p] && wide[p] < rows;
  narrow[p] = good ? static_cast<int32_t>(wide[p]) : 0;
  if (!good) atomicMin(first_bad, static_cast<unsigned long long>(p));
}

// Row i, by a warp: those of its first `width` neighbours that have i among their first `width`.
__global__ void reciprocal_sets(const int32_t* nn, int64_t rows, int64_t k1, int64_t width, Lists sets) {
  const int lane = threadIdx.x % kWarpSize;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kCsrWarps + threadIdx.x / kWarpSize;
  if (i >= rows) return;
  int32_t size = 0;
  for (int64_t first = 0; first < width; first += kWarpSize) {
    const int64_t r = first + lane;
    const int32_t j = r < width ? nn[i * k1 + r] : 0;
    bool mutual = false;
    for (int64_t s = 0; r < width && s < width && !mutual; ++s) mutual = nn[j * k1 + s] == i;
    const unsigned votes = __ballot_sync(kWholeWarp, mutual);
    if (mutual) sets.items[i * sets.stride + size + __popc(votes & ((1u << lane) - 1))] = j;
    size += __popc(votes);
  }
  if (lane == 0) sets.sizes[i] = size;
}

// Does the half set of the r-th member of R(i) join R*(i)? Also counts the entries, with repeats, that R*(i) is made
// of.
__global__ void choose_half_sets(Lists full, Lists half, int64_t rows, int64_t k1, uint8_t* joined,
                                 unsigned long long* count) {
  const int64_t t = thread_index(), i = t / k1, r = t % k1;
  if (i >= rows || r >= full.sizes[i]) return;
  const int32_t c = full.items[i * full.stride + r], size = half.sizes[c];
  int64_t common = 0;
  for (int32_t s = 0; s < size; ++s) common += full.contains(i, half.items[c * half.stride + s]);
  joined[t] = joins(common, size);
  atomicAdd(count + i, 1ull + (joined[t] ? size : 0));
}

// The entries of rows [begin, end), in any order within a row; cursor[i] starts at the row's place in `key`.
__global__ void write_star(Lists full, Lists half, int64_t begin, int64_t end, int64_t k1, const uint8_t* joined,
                           int column_bits, unsigned long long* cursor, uint64_t* key) {
  const int64_t t = begin * k1 + thread_index(), i = t / k1, r = t % k1;
  if (i >= end || r >= full.sizes[i]) return;
  const int32_t c = full.items[i * full.stride + r], size = joined[t] ? half.sizes[c] : 0;
  uint64_t* out = key + atomicAdd(cursor + i, 1ull + size);
  const auto row = static_cast<uint64_t>(i - begin) << column_bits;
  *out = row | c;
  for (int32_t s = 0; s < size; ++s) *++out = row | half.items[c * half.stride + s];
}

// `table` [rows, k1] in 32 bits, each entry checked to be a row. Waits for the stream.
Scratch<int32_t> narrowed(const Tensor& table, cudaStream_t stream) {
  const int64_t rows = table.size(0), k1 = table.size(1);
  const Scratch<int32_t> nn(rows * k1, table);
  const Scratch<unsigned long long> first_bad(1, table);
  first_bad.fill(0xff, stream);
  LAUNCH(narrow_neighbours, blocks_for(rows * k1), kCsrThreads, 0, stream, table.const_data_ptr<int64_t>(), rows * k1,
         rows, nn.data(), first_bad.data());
  const auto bad = read_back(first_bad.data(), stream);
  check(bad == kNowhere, "nn: expected 0 to ", rows - 1, ", got ",
        bad == kNowhere ? 0 : read_back(table.const_data_ptr<int64_t>() + bad, stream), " in row ", bad / k1);
  return nn;
}

constexpr int kPartners = 4;

// A value for each entry (i, j) of row i, by a warp: the sum of Pair::term(x[i][c], x[j][c]) over the columns, with the
// lanes and the fold of math/dot.h; (i, j) and (j, i) give the same bits. (i, j) with j < i is left to copy_mirrored
// where (j, i) is stored too. Row i is read and converted once for kPartners entries.
template <class Pair>
__global__ void evaluate_entries(const float* x, int64_t d, Csr star, double* value) {
  const int lane = threadIdx.x % kWarpSize;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kCsrWarps + threadIdx.x / kWarpSize;
  if (i >= star.rows) return;
  const int64_t end = star.indptr[i + 1];
  for (int64_t p = star.indptr[i]; p < end;) {
    int64_t entry[kPartners];  // -1: no more
    const float* partner[kPartners];
#pragma unroll
    for (int t = 0; t < kPartners; ++t) {
      while (p < end && star.indices[p] < i && star.find(star.indices[p], static_cast<int32_t>(i)) >= 0) ++p;
      entry[t] = p < end ? p : -1;
      partner[t] = p < end ? x + star.indices[p] * d : x;
      p += p < end;
    }
    double sum[kPartners] = {};
    for (int64_t c = lane; c < d; c += kWarpSize) {
      const double mine = x[i * d + c];
#pragma unroll
      for (int t = 0; t < kPartners; ++t) {
        if (entry[t] >= 0) sum[t] += Pair::term(mine, static_cast<double>(partner[t][c]));
      }
    }
#pragma unroll
    for (int t = 0; t < kPartners; ++t) {
      if (entry[t] < 0) continue;  // the same for all lanes
      const double whole = warp_sum(sum[t]);
      if (lane == 0) value[entry[t]] = whole;
    }
  }
}

__global__ void copy_mirrored(Csr star, double* value) {
  const int lane = threadIdx.x % kWarpSize;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kCsrWarps + threadIdx.x / kWarpSize;
  if (i >= star.rows) return;
  for (int64_t p = star.indptr[i] + lane; p < star.indptr[i + 1] && star.indices[p] < i; p += kWarpSize) {
    const int64_t mirror = star.find(star.indices[p], static_cast<int32_t>(i));
    if (mirror >= 0) value[p] = value[mirror];
  }
}

// For all entries; x [rows, d].
template <class Pair>
void symmetric_values(const Tensor& x, const Csr& star, double* value, cudaStream_t stream) {
  LAUNCH(evaluate_entries<Pair>, blocks_for(star.rows, kCsrWarps), kCsrThreads, 0, stream, x.const_data_ptr<float>(),
         x.size(1), star, value);
  LAUNCH(copy_mirrored, blocks_for(star.rows, kCsrWarps), kCsrThreads, 0, stream, star, value);
}

// v = numerator(p) over the sum of them for entries [begin, end), by a warp; they are added in float64 in ascending
// order, as on the CPU.
template <class Numerator>
__device__ void normalise_row(int64_t begin, int64_t end, const Numerator& numerator, float* v) {
  const int lane = threadIdx.x % kWarpSize;
  double sum = 0.0;
  for (int64_t first = begin; first < end; first += kWarpSize) {
    const int64_t p = first + lane;
    const float mine = p < end ? numerator(p) : 0.0f;
    if (p < end) v[p] = mine;
    for (int l = 0; l < kWarpSize; ++l) {
      const float term = __shfl_sync(kWholeWarp, mine, l);
      if (first + l < end) sum += term;
    }
  }
  for (int64_t p = begin + lane; p < end; p += kWarpSize) v[p] = static_cast<float>(v[p] / sum);
}

// Entries that the k2 rows of v behind row i have together; 0 for i = rows.
__global__ void expansion_counts(const int32_t* nn, int64_t k1, int64_t k2, Csr v, int64_t* count) {
  const int64_t i = thread_index();
  if (i > v.rows) return;
  int64_t sum = 0;
  for (int64_t r = 0; r < k2 && i < v.rows; ++r) {
    const int64_t j = nn[i * k1 + r];
    sum += v.indptr[j + 1] - v.indptr[j];
  }
  count[i] = sum;
}

// The rows of v behind row i, in rank order, by a warp.
__global__ void write_expansion(const int32_t* nn, int64_t begin, int64_t end, int64_t k1, int64_t k2, Csr v,
                                const int64_t* offset, int column_bits, uint64_t* key, uint32_t* value_bits) {
  const int lane = threadIdx.x % kWarpSize;
  const int64_t i = begin + static_cast<int64_t>(blockIdx.x) * kCsrWarps + threadIdx.x / kWarpSize;
  if (i >= end) return;
  int64_t at = offset[i] - offset[begin];
  for (int64_t r = 0; r < k2; ++r) {
    const int64_t j = nn[i * k1 + r], first = v.indptr[j], size = v.indptr[j + 1] - first;
    for (int64_t s = lane; s < size; s += kWarpSize) {
      key[at + s] = static_cast<uint64_t>(i - begin) << column_bits | v.indices[first + s];
      value_bits[at + s] = __float_as_uint(v.values[first + s]);
    }
    at += size;
  }
}

__global__ void start_cursors(const int64_t* offset, int64_t begin, int64_t end, unsigned long long* cursor) {
  const int64_t i = begin + thread_index();
  if (i < end) cursor[i] = offset[i] - offset[begin];
}

// R*(i), values not yet set: full sets of all k1 columns of nn, half sets of the first `width`.
CsrTensors expanded_sets(const int32_t* nn, int64_t rows, int64_t k1, int64_t width, const Tensor& like,
                         cudaStream_t stream) {
  const Scratch<int32_t> full_items(rows * k1, like), full_sizes(rows, like), half_items(rows * width, like),
      half_sizes(rows, like);
  const Lists full{full_items.data(), full_sizes.data(), k1}, half{half_items.data(), half_sizes.data(), width};
  const unsigned row_blocks = blocks_for(rows, kCsrWarps);
  LAUNCH(reciprocal_sets, row_blocks, kCsrThreads, 0, stream, nn, rows, k1, k1, full);
  LAUNCH(reciprocal_sets, row_blocks, kCsrThreads, 0, stream, nn, rows, k1, width, half);

  const Scratch<uint8_t> joined(rows * k1, like);
  const Scratch<unsigned long long> count(rows + 1, like);
  count.fill(0, stream);
  LAUNCH(choose_half_sets, blocks_for(rows * k1), kCsrThreads, 0, stream, full, half, rows, k1, joined.data(),
         count.data());
  const Scratch<int64_t> offset(rows + 1, like);
  exclusive_sum(reinterpret_cast<const int64_t*>(count.data()), offset.data(), rows + 1, like, stream);

  return in_ranges(offset.data(), rows, like, stream, [&](int64_t begin, int64_t end, int64_t n) {
    const Scratch<uint64_t> key(n, like);
    LAUNCH(start_cursors, blocks_for(end - begin), kCsrThreads, 0, stream, offset.data(), begin, end, count.data());
    LAUNCH(write_star, blocks_for((end - begin) * k1), kCsrThreads, 0, stream, full, half, begin, end, k1,
           joined.data(), bits_for(rows), count.data(), key.data());
    return sort_and_compress(key, nullptr, n, end - begin, bits_for(rows), 1.0f, like, stream);
  });
}

// V'(i) = mean of V(nn[i][r]), r = 0 .. k2 - 1, added in that order; nn has k1 columns.
CsrTensors query_expansion(const int32_t* nn, int64_t k1, int64_t k2, const Csr& v, const Tensor& like,
                           cudaStream_t stream) {
  const Scratch<int64_t> offset(v.rows + 1, like);
  LAUNCH(expansion_counts, blocks_for(v.rows + 1), kCsrThreads, 0, stream, nn, k1, k2, v, offset.data());
  exclusive_sum(offset.data(), offset.data(), v.rows + 1, like, stream);
  return in_ranges(offset.data(), v.rows, like, stream, [&](int64_t begin, int64_t end, int64_t n) {
    const Scratch<uint64_t> key(n, like);
    const Scratch<uint32_t> value_bits(n, like);
    LAUNCH(write_expansion, blocks_for(end - begin, kCsrWarps), kCsrThreads, 0, stream, nn, begin, end, k1, k2, v,
           offset.data(), bits_for(v.rows), key.data(), value_bits.data());
    return sort_and_compress(key, &value_bits, n, end - begin, bits_for(v.rows), static_cast<float>(k2), like, stream);
  });
}

}  // namespace
}  // namespace ise_fast
