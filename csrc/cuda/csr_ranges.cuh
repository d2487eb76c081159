// Rows of a sparse matrix out of unordered keys, as many at once as bounded scratch holds.
#pragma once

#include <vector>

#include "csr.cuh"

namespace ise_fast {

// How many unsorted entries to hold at once: key, value, their sorted copies, CUB's scratch and positions are about 64
// bytes each; a small part of the device keeps the peak low and is enough to fill it.
constexpr int64_t kFewestEntries = int64_t{1} << 14;
inline int64_t entry_budget() {
  return std::max(kFewestEntries, device_bytes() / 64 / 64);
}

// Consecutive rows and how many entries they have.
struct RowRange {
  int64_t begin, end, entries;
};
struct RowRanges {
  RowRange next[32];
};

namespace csr {

__global__ static void shift_offsets(const int64_t* from, int64_t rows, int64_t shift, int64_t* to) {
  const int64_t r = thread_index();
  if (r < rows) to[r] = from[r] + shift;
}

// The next ranges from row `begin` on, of at most `budget` entries each (one row may have more), by one thread. Beyond
// the last row they are empty.
__global__ static void find_ranges(const int64_t* offset, int64_t rows, int64_t begin, int64_t budget,
                                   RowRanges* ranges) {
  for (RowRange& range : ranges->next) {
    int64_t low = begin < rows ? begin + 1 : rows, high = rows;
    while (low < high) {  // the last row whose end is within the budget
      const int64_t middle = low + (high - low + 1) / 2;
      if (offset[middle] - offset[begin] <= budget) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    range = {begin, low, offset[low] - offset[begin]};
    begin = low;
  }
}

}  // namespace csr

// Ranges of rows with at most `budget` entries, from offsets [rows + 1] on the device, which start at 0. Waits for the
// stream, and where it takes several ranges once more for 32 of them.
inline std::vector<RowRange> split_rows(const int64_t* offset, int64_t rows, int64_t budget, const Tensor& like,
                                        cudaStream_t stream) {
  const int64_t total = read_back(offset + rows, stream);
  if (total <= budget) return {{0, rows, total}};
  const Scratch<RowRanges> found(1, like);
  std::vector<RowRange> ranges;
  for (int64_t begin = 0; begin < rows; begin = ranges.back().end) {
    LAUNCH(csr::find_ranges, 1, 1, 0, stream, offset, rows, begin, budget, found.data());
    for (const RowRange& range : read_back(found.data(), stream).next) {
      if (range.begin < range.end) ranges.push_back(range);
    }
  }
  return ranges;
}

// Ranges of rows, one below the other.
inline CsrTensors concatenate(const std::vector<CsrTensors>& parts, const Tensor& like, cudaStream_t stream) {
  if (parts.size() == 1) return parts[0];
  int64_t rows = 0, nnz = 0;
  for (const auto& [indptr, indices, values] : parts) {
    rows += indptr.size(0) - 1;
    nnz += indices.size(0);
  }
  CsrTensors whole{device_empty(like, {rows + 1}, ScalarType::Long), device_empty(like, {nnz}, ScalarType::Int),
                   device_empty(like, {nnz}, ScalarType::Float)};
  auto& [all_indptr, all_indices, all_values] = whole;
  fill_bytes(all_indptr.mutable_data_ptr<int64_t>(), 0, (rows + 1) * sizeof(int64_t), stream);
  int64_t row = 0, entry = 0;
  for (const auto& [indptr, indices, values] : parts) {
    LAUNCH(csr::shift_offsets, blocks_for(indptr.size(0)), kCsrThreads, 0, stream, indptr.const_data_ptr<int64_t>(),
           indptr.size(0), entry, all_indptr.mutable_data_ptr<int64_t>() + row);
    Tensor to_indices = torch::stable::narrow(all_indices, 0, entry, indices.size(0));
    Tensor to_values = torch::stable::narrow(all_values, 0, entry, values.size(0));
    torch::stable::copy_(to_indices, indices);
    torch::stable::copy_(to_values, values);
    row += indptr.size(0) - 1;
    entry += indices.size(0);
  }
  return whole;
}

// Row by row from `entries` (begin, end, n) of ranges of rows with n entries each, which `offset` [rows + 1] tells.
template <class Entries>
CsrTensors in_ranges(const int64_t* offset, int64_t rows, const Tensor& like, cudaStream_t stream,
                     const Entries& entries) {
  return halve_on_failure(entry_budget(), kFewestEntries, [&](int64_t budget) {
    std::vector<CsrTensors> parts;
    for (const RowRange& range : split_rows(offset, rows, budget, like, stream)) {
      parts.push_back(entries(range.begin, range.end, range.entries));
    }
    return concatenate(parts, like, stream);
  });
}

}  // namespace ise_fast
