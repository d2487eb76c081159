// The sets and the query expansion of any size: entries are written as unordered (row, column) keys, sorted and
// compressed (csr.cuh), in ranges of rows that keep the scratch bounded. row_sets.cuh is faster where sets are small.
#pragma once

#include "csr_ranges.cuh"
#include "reciprocal.cuh"

namespace ise_fast {
namespace {

// Does the half set of the r-th member of R(i) join R*(i)? Also counts the entries, with repeats, that R*(i) is made
// of. `full` has the lists of some rows, `half` those of all.
template <class Half>
__global__ void choose_half_sets(Lists full, Half half, int64_t rows, int64_t k1, uint8_t* joined,
                                 unsigned long long* count) {
  const int64_t t = thread_index(), i = t / k1, r = t % k1;
  if (i >= rows || r >= full.sizes[i]) return;
  const int32_t c = full.items[i * full.stride + r];
  int32_t size = 0;
  int64_t common = 0;
  half.each(c, [&](int32_t member) {
    common += full.contains(i, member);
    ++size;
  });
  joined[t] = joins(common, size);
  atomicAdd(count + i, 1ull + (joined[t] ? size : 0));
}

// The entries of rows [begin, end), by a warp each: a member of R(i) and the half set that joins it, one after the
// other.
template <class Half>
__global__ void write_star(Lists full, Half half, int64_t begin, int64_t end, int64_t k1, const uint8_t* joined,
                           int column_bits, const int64_t* offset, uint64_t* key) {
  const int lane = threadIdx.x % kWarpSize;
  const int64_t i = begin + static_cast<int64_t>(blockIdx.x) * kCsrWarps + threadIdx.x / kWarpSize;
  if (i >= end) return;
  const auto row = static_cast<uint64_t>(i - begin) << column_bits;
  const int32_t members = full.sizes[i];
  uint64_t* out = key + (offset[i] - offset[begin]);
  for (int32_t start = 0; start < members; start += kWarpSize) {
    const int32_t r = start + lane;
    const bool mine = r < members;
    const int32_t c = mine ? full.items[i * full.stride + r] : 0;
    const int32_t size = mine && joined[i * k1 + r] ? half.slots(c) : 0;
    for (int32_t t = 0; t < kWarpSize && start + t < members; ++t) {
      const int32_t member = __shfl_sync(kWholeWarp, c, t), slots = __shfl_sync(kWholeWarp, size, t);
      if (lane == 0) *out = row | member;
      ++out;
      for (int32_t from = 0; from < slots; from += kWarpSize) {
        const bool wanted = from + lane < slots && half.has(member, from + lane);
        const unsigned votes = __ballot_sync(kWholeWarp, wanted);
        if (wanted) out[__popc(votes & ((1u << lane) - 1))] = row | half.item(member, from + lane);
        out += __popc(votes);
      }
    }
  }
}

// Entries that the k2 rows of v behind row i have together; 0 for i = rows.
__global__ void expansion_counts(const int32_t* nn, int64_t rows, int64_t k1, int64_t k2, Csr v, int64_t* count) {
  const int64_t i = thread_index();
  if (i > rows) return;
  int64_t sum = 0;
  for (int64_t r = 0; r < k2 && i < rows; ++r) {
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
      key[at + s] = static_cast<uint64_t>(i - begin) << column_bits | static_cast<uint32_t>(v.indices[first + s]);
      value_bits[at + s] = __float_as_uint(v.values[first + s]);
    }
    at += size;
  }
}

// R*(i) of the rows that `full` is of, values not yet set; columns are less than `columns`.
template <class Half>
CsrTensors sorted_sets(const Lists& full, const Half& half, int64_t rows, int64_t columns, int64_t k1,
                       const Tensor& like, cudaStream_t stream) {
  const int column_bits = bits_for(columns);
  const Scratch<uint8_t> joined(rows * k1, like);
  const Scratch<unsigned long long> count(rows + 1, like);
  count.fill(0, stream);
  LAUNCH(choose_half_sets<Half>, blocks_for(rows * k1), kCsrThreads, 0, stream, full, half, rows, k1, joined.data(),
         count.data());
  const Scratch<int64_t> offset(rows + 1, like);
  exclusive_sum(reinterpret_cast<const int64_t*>(count.data()), offset.data(), rows + 1, like, stream);
  return in_ranges(offset.data(), rows, like, stream, [&](int64_t begin, int64_t end, int64_t n) {
    const Scratch<uint64_t> key(n, like);
    LAUNCH(write_star<Half>, blocks_for(end - begin, kCsrWarps), kCsrThreads, 0, stream, full, half, begin, end, k1,
           joined.data(), column_bits, offset.data(), key.data());
    return sort_and_compress(key, nullptr, n, end - begin, column_bits, 1.0f, like, stream);
  });
}

// V'(i) = mean of V(nn[i][r]), r = 0 .. k2 - 1, added in that order; nn has k1 columns and `rows` rows, whose numbers
// are of rows of v.
inline CsrTensors sorted_expansion(const int32_t* nn, int64_t rows, int64_t k1, int64_t k2, const Csr& v,
                                   int column_bits, const Tensor& like, cudaStream_t stream) {
  const Scratch<int64_t> offset(rows + 1, like);
  LAUNCH(expansion_counts, blocks_for(rows + 1), kCsrThreads, 0, stream, nn, rows, k1, k2, v, offset.data());
  exclusive_sum(offset.data(), offset.data(), rows + 1, like, stream);
  return in_ranges(offset.data(), rows, like, stream, [&](int64_t begin, int64_t end, int64_t n) {
    const Scratch<uint64_t> key(n, like);
    const Scratch<uint32_t> value_bits(n, like);
    LAUNCH(write_expansion, blocks_for(end - begin, kCsrWarps), kCsrThreads, 0, stream, nn, begin, end, k1, k2, v,
           offset.data(), column_bits, key.data(), value_bits.data());
    return sort_and_compress(key, &value_bits, n, end - begin, column_bits, static_cast<float>(k2), like, stream);
  });
}

}  // namespace
}  // namespace ise_fast
