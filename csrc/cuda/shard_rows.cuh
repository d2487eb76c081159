// What the operators on a part of the rows check on the device, with the words of the CPU operators (shard_rows.h).
#pragma once

#include "csr.cuh"

namespace ise_fast {
namespace {

// Entries that number rows of something.
struct RowNumbers {
  const int32_t* index;
  int64_t rows;

  __device__ bool operator()(int64_t p, int64_t) const { return 0 <= index[p] && index[p] < rows; }
};

struct AnyEntry {
  __device__ bool operator()(int64_t, int64_t) const { return true; }
};

__global__ void find_bad_index(RowNumbers numbers, int64_t n, unsigned long long* first_bad) {
  const int64_t p = thread_index();
  if (p < n && !numbers(p, 0)) atomicMin(first_bad, static_cast<unsigned long long>(p));
}

// Refuses the first of `index` [n], `width` of them in a row, that is none of `rows` rows. Waits for the stream.
inline void check_indices(const int32_t* index, int64_t n, int64_t width, int64_t rows, const char* name,
                          const Tensor& like, cudaStream_t stream) {
  if (n == 0) return;
  const Scratch<unsigned long long> first_bad(1, like);
  first_bad.fill(0xff, stream);
  LAUNCH(find_bad_index, blocks_for(n), kCsrThreads, 0, stream, RowNumbers{index, rows}, n, first_bad.data());
  const auto bad = read_back(first_bad.data(), stream);
  if (bad == kNowhere) return;
  check(false, name, ": expected 0 to ", rows - 1, ", got ", read_back(index + bad, stream), " in row ", bad / width);
}

// Refuses offsets that are none. Waits for the stream.
inline void check_offsets(const int64_t* indptr, int64_t rows, int64_t nnz, const Tensor& like, cudaStream_t stream) {
  first_bad_entry(indptr, rows, nnz, AnyEntry{}, like, stream);
}

}  // namespace
}  // namespace ise_fast
