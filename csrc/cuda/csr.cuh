// Sparse matrices in compressed rows on the device: scratch, validation, and rows out of sorted keys (in parts of
// bounded size: csr_ranges.cuh).
//
// Whatever produces entries in no particular order writes them as keys `row << column_bits | column`; a radix sort and
// compress() turn those into rows with ascending columns. The sort keeps the order of equal keys, so entries that are
// added up are added in the order in which they were written.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <bit>
#include <limits>
#include <optional>

#include "../check_graph.h"
#include "allocate.h"
#include "cub.h"
#include "reduce.cuh"

namespace ise_fast {

constexpr int kCsrThreads = 256;
constexpr int kCsrWarps = kCsrThreads / kWarpSize;
constexpr unsigned long long kNowhere = ~0ull;

inline unsigned blocks_for(int64_t items) {
  return blocks_for(items, kCsrThreads);
}

inline int bits_for(int64_t values) {
  return std::max(1, static_cast<int>(std::bit_width(static_cast<uint64_t>(std::max<int64_t>(values - 1, 0)))));
}

__device__ __forceinline__ int64_t thread_index() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

// Memory for n T on the device of `like`, as long as this lives (the allocator reuses it in stream order).
template <class T>
class Scratch {
public:
  Scratch(int64_t n, const Tensor& like)
      : memory_(device_empty(like, {std::max<int64_t>(n, 1) * static_cast<int64_t>(sizeof(T))}, ScalarType::Byte)),
        bytes_(std::max<int64_t>(n, 1) * sizeof(T)) {}
  T* data() const { return reinterpret_cast<T*>(memory_.mutable_data_ptr<uint8_t>()); }
  void fill(int byte, cudaStream_t stream) const { fill_bytes(data(), byte, bytes_, stream); }

private:
  Tensor memory_;
  size_t bytes_;
};

template <class Index, class Value>
struct DeviceCsr {
  int64_t rows;
  const int64_t* indptr;
  const Index* indices;
  const Value* values;

  // Position of (i, j), or -1.
  __device__ int64_t find(int64_t i, Index j) const {
    int64_t low = indptr[i], high = indptr[i + 1];
    while (low < high) {
      const int64_t middle = low + (high - low) / 2;
      if (indices[middle] < j) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low < indptr[i + 1] && indices[low] == j ? low : -1;
  }
};

template <class Index, class Value>
DeviceCsr<Index, Value> device_csr(const Tensor& indptr, const Tensor& indices, const Tensor& values) {
  return {indptr.size(0) - 1, indptr.const_data_ptr<int64_t>(), indices.const_data_ptr<Index>(),
          values.const_data_ptr<Value>()};
}

namespace csr {

// What is wrong with a matrix, and where its entries begin and end.
struct Findings {
  unsigned long long bad_row, bad_entry;  // kNowhere: none
  int64_t first, last;

  // May kernels follow the offsets and columns, though the host has not read this yet?
  __device__ bool nothing(int64_t nnz) const {
    return bad_row == kNowhere && bad_entry == kNowhere && first == 0 && last == nnz;
  }
};

// A warp a row: is good(p, begin) true of every entry p of the row that begins at `begin`? Offsets that are refused
// must not lead out of the entries.
template <class Good>
__global__ void check_rows(const int64_t* indptr, int64_t rows, int64_t nnz, Good good, Findings* findings) {
  const int lane = threadIdx.x % kWarpSize;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kCsrWarps + threadIdx.x / kWarpSize;
  if (i >= rows) return;
  const int64_t begin = indptr[i], end = indptr[i + 1];
  if (lane == 0) {
    if (begin > end) atomicMin(&findings->bad_row, static_cast<unsigned long long>(i));
    if (i == 0) findings->first = begin;
    if (i == rows - 1) findings->last = end;
  }
  if (begin < 0 || end > nnz) return;
  for (int64_t p = begin + lane; p < end; p += kWarpSize) {
    if (!good(p, begin)) atomicMin(&findings->bad_entry, static_cast<unsigned long long>(p));
  }
}

// Ascending columns below `columns`, finite values of at least 0.
template <class Index, class Value>
struct GraphEntries {
  const Index* indices;
  const Value* values;
  int64_t columns;
  Value largest;

  __device__ bool operator()(int64_t p, int64_t begin) const {
    const int64_t last = p > begin ? static_cast<int64_t>(indices[p - 1]) : -1;
    return last < indices[p] && indices[p] < columns && values[p] >= 0 && values[p] <= largest;
  }
};

__global__ static void mark_heads(const uint64_t* key, int64_t n, int64_t* head) {
  const int64_t p = thread_index();
  if (p <= n) head[p] = p < n && (p == 0 || key[p] != key[p - 1]);
}

// indptr[r] = how many different keys belong to rows below r.
__global__ static void row_offsets(const uint64_t* key, const int64_t* position, int64_t n, int64_t rows,
                                   int column_bits, int64_t* indptr) {
  const int64_t r = thread_index();
  if (r > rows) return;
  int64_t low = 0, high = n;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (static_cast<int64_t>(key[middle] >> column_bits) < r) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  indptr[r] = position[low];
}

// The thread of the first of equal keys adds up their values, in order.
__global__ static void write_entries(const uint64_t* key, const uint32_t* value_bits, const int64_t* position,
                                     int64_t n, int column_bits, float divisor, int32_t* index, float* value) {
  const int64_t p = thread_index();
  if (p >= n || (p > 0 && key[p] == key[p - 1])) return;
  index[position[p]] = static_cast<int32_t>(key[p] & ((uint64_t{1} << column_bits) - 1));
  if (value_bits == nullptr) return;
  float sum = __uint_as_float(value_bits[p]);
  for (int64_t q = p + 1; q < n && key[q] == key[p]; ++q) sum += __uint_as_float(value_bits[q]);
  value[position[p]] = sum / divisor;
}

}  // namespace csr

struct BadEntry {
  int64_t entry, row;
  bool first;  // of its row
};

// Has the matrix looked at; for at least one row. `findings` are all 0xff before.
template <class Good>
void look_at_rows(const int64_t* indptr, int64_t rows, int64_t nnz, const Good& good, csr::Findings* findings,
                  cudaStream_t stream) {
  LAUNCH(csr::check_rows<Good>, blocks_for(rows, kCsrWarps), kCsrThreads, 0, stream, indptr, rows, nnz, good, findings);
}

// The first entry that is not good. Offsets are refused where the CPU operators do it, with the same words.
inline std::optional<BadEntry> bad_entry_of(const csr::Findings& found, const int64_t* indptr, int64_t rows,
                                            int64_t nnz, cudaStream_t stream) {
  if (found.bad_row != kNowhere) {
    const auto i = static_cast<int64_t>(found.bad_row);
    check_csr_offsets(read_back(indptr + i, stream), read_back(indptr + i + 1, stream), i);
  }
  check_csr_ends(found.first, found.last, nnz);
  if (found.bad_entry == kNowhere) return std::nullopt;
  const auto p = static_cast<int64_t>(found.bad_entry);
  int64_t row = 0, above = rows;  // the last row that starts at or before p
  while (above - row > 1) {
    const int64_t middle = row + (above - row) / 2;
    (read_back(indptr + middle, stream) <= p ? row : above) = middle;
  }
  return BadEntry{p, row, read_back(indptr + row, stream) == p};
}

// Both. Waits for the stream.
template <class Good>
std::optional<BadEntry> first_bad_entry(const int64_t* indptr, int64_t rows, int64_t nnz, const Good& good,
                                        const Tensor& like, cudaStream_t stream) {
  if (rows == 0) {
    const int64_t only = read_back(indptr, stream);
    check_csr_ends(only, only, nnz);
    return std::nullopt;
  }
  const Scratch<csr::Findings> findings(1, like);
  findings.fill(0xff, stream);
  look_at_rows(indptr, rows, nnz, good, findings.data(), stream);
  return bad_entry_of(read_back(findings.data(), stream), indptr, rows, nnz, stream);
}

template <class Index, class Value>
csr::GraphEntries<Index, Value> graph_entries(const DeviceCsr<Index, Value>& graph, int64_t columns) {
  return {graph.indices, graph.values, columns, std::numeric_limits<Value>::max()};
}

// Throws where the CPU operators do, with the same words.
template <class Index, class Value>
void judge_csr(const std::optional<BadEntry>& bad, const DeviceCsr<Index, Value>& graph, int64_t columns,
               cudaStream_t stream) {
  if (!bad) return;
  const int64_t p = bad->entry;
  check_csr_entry(read_back(graph.indices + p, stream), bad->first ? -1 : read_back(graph.indices + p - 1, stream),
                  read_back(graph.values + p, stream), columns, bad->row);
}
template <class Index, class Value>
void judge_csr(const csr::Findings& found, const DeviceCsr<Index, Value>& graph, int64_t columns, int64_t nnz,
               cudaStream_t stream) {
  judge_csr(bad_entry_of(found, graph.indptr, graph.rows, nnz, stream), graph, columns, stream);
}

// Looks and judges. Waits for the stream.
template <class Index, class Value>
void check_csr(const DeviceCsr<Index, Value>& graph, int64_t columns, int64_t nnz, const Tensor& like,
               cudaStream_t stream) {
  judge_csr(first_bad_entry(graph.indptr, graph.rows, nnz, graph_entries(graph, columns), like, stream), graph, columns,
            stream);
}

// Sorted keys to rows 0 .. rows - 1. Equal keys become one entry: the sum of their values in order, divided once; with
// no values the output's values are left unset.
inline CsrTensors compress(const uint64_t* key, const uint32_t* value_bits, int64_t n, int64_t rows, int column_bits,
                           float divisor, const Tensor& like, cudaStream_t stream) {
  const Scratch<int64_t> position(n + 1, like);
  LAUNCH(csr::mark_heads, blocks_for(n + 1), kCsrThreads, 0, stream, key, n, position.data());
  exclusive_sum(position.data(), position.data(), n + 1, like, stream);
  const int64_t nnz = read_back(position.data() + n, stream);
  Tensor indptr = device_empty(like, {rows + 1}, ScalarType::Long);
  Tensor indices = device_empty(like, {nnz}, ScalarType::Int);
  Tensor values = device_empty(like, {nnz}, ScalarType::Float);
  LAUNCH(csr::row_offsets, blocks_for(rows + 1), kCsrThreads, 0, stream, key, position.data(), n, rows, column_bits,
         indptr.mutable_data_ptr<int64_t>());
  if (n > 0) {
    LAUNCH(csr::write_entries, blocks_for(n), kCsrThreads, 0, stream, key, value_bits, position.data(), n, column_bits,
           divisor, indices.mutable_data_ptr<int32_t>(), values.mutable_data_ptr<float>());
  }
  return {indptr, indices, values};
}

// Sorts unordered keys (and values, if any) of `rows` rows and compresses them.
inline CsrTensors sort_and_compress(const Scratch<uint64_t>& key, const Scratch<uint32_t>* value_bits, int64_t n,
                                    int64_t rows, int column_bits, float divisor, const Tensor& like,
                                    cudaStream_t stream) {
  const Scratch<uint64_t> sorted(n, like);
  const int last_bit = std::min(64, column_bits + bits_for(rows));
  if (value_bits == nullptr) {
    if (n > 0) sort_keys(key.data(), sorted.data(), n, like, stream, 0, last_bit);
    return compress(sorted.data(), nullptr, n, rows, column_bits, divisor, like, stream);
  }
  const Scratch<uint32_t> sorted_values(n, like);
  if (n > 0) {
    sort_pairs(key.data(), sorted.data(), value_bits->data(), sorted_values.data(), n, like, stream, 0, last_bit);
  }
  return compress(sorted.data(), sorted_values.data(), n, rows, column_bits, divisor, like, stream);
}

}  // namespace ise_fast
