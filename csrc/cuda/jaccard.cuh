// The mass that rows of V' share, through the columns of V': what the Jaccard distance and re-ranking have in common.
#pragma once

#include "csr.cuh"

namespace ise_fast {
namespace {

using Csr = DeviceCsr<int32_t, float>;

constexpr int kMassThreads = 256;

// (column, row) keys of the entries of rows [first_row, v.rows), by a warp per row; the rows count from first_row.
__global__ void write_transposed(Csr v, int64_t first_row, int column_bits, uint64_t* key, uint32_t* value_bits) {
  const int64_t i = first_row + static_cast<int64_t>(blockIdx.x) * kCsrWarps + threadIdx.x / kWarpSize;
  if (i >= v.rows) return;
  const int64_t before = v.indptr[first_row];
  for (int64_t p = v.indptr[i] + threadIdx.x % kWarpSize; p < v.indptr[i + 1]; p += kWarpSize) {
    key[p - before] = static_cast<uint64_t>(v.indices[p]) << column_bits | static_cast<uint64_t>(i - first_row);
    value_bits[p - before] = __float_as_uint(v.values[p]);
  }
}

// The `columns` columns of V', of its rows from first_row on; these have `nnz` entries. Waits for the stream.
inline CsrTensors transposed_rows(const Csr& v, int64_t first_row, int64_t nnz, int64_t columns, const Tensor& like,
                                  cudaStream_t stream) {
  const Scratch<uint64_t> key(nnz, like);
  const Scratch<uint32_t> value_bits(nnz, like);
  const int bits = bits_for(v.rows);
  if (nnz > 0) {
    LAUNCH(write_transposed, blocks_for(v.rows - first_row, kCsrWarps), kCsrThreads, 0, stream, v, first_row, bits,
           key.data(), value_bits.data());
  }
  return sort_and_compress(key, &value_bits, nnz, columns, bits, 1.0f, like, stream);
}

// sum[j] = s(i, j) for the j < n of `columns`, by a whole block, one f after the other as on the CPU. Every thread
// may read every sum afterwards.
__device__ inline void sum_shared_mass(const Csr& v, const Csr& columns, int64_t i, int64_t n, float* sum) {
  for (int64_t j = threadIdx.x; j < n; j += blockDim.x) sum[j] = 0.0f;
  __syncthreads();
  for (int64_t p = v.indptr[i]; p < v.indptr[i + 1]; ++p) {
    const int64_t f = v.indices[p];
    const float weight = v.values[p];
    for (int64_t q = columns.indptr[f] + threadIdx.x; q < columns.indptr[f + 1]; q += blockDim.x) {
      sum[columns.indices[q]] += Min{}(weight, columns.values[q]);
    }
    __syncthreads();
  }
}

}  // namespace
}  // namespace ise_fast
