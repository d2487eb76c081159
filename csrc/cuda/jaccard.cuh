// The mass that rows of V' share, through the columns of V': what the Jaccard distance and re-ranking have in common.
#pragma once

#include "csr.cuh"

namespace ise_fast {
namespace {

using Csr = DeviceCsr<int32_t, float>;

constexpr int kMassThreads = 256;

// What the host is still to read about a matrix, if anything: until then only a kernel that has asked may follow it.
struct Doubt {
  const csr::Findings* findings;  // null: none
  int64_t nnz;

  __device__ bool lifted() const { return findings == nullptr || findings->nothing(nnz); }
};

// How many entries each column has among those from row `first_row` on.
__global__ void count_columns(Csr v, int64_t first_row, int64_t nnz, Doubt doubt, unsigned long long* count) {
  const int64_t p = thread_index();
  if (p < nnz && doubt.lifted()) atomicAdd(count + v.indices[v.indptr[first_row] + p], 1ull);
}

// Entries of rows [first_row, v.rows) into their columns, by a warp per row; the rows count from first_row. `left`: the
// counts of the columns, zeros afterwards.
__global__ void fill_columns(Csr v, int64_t first_row, Doubt doubt, const int64_t* offset, unsigned long long* left,
                             int32_t* row, float* weight) {
  const int64_t i = first_row + static_cast<int64_t>(blockIdx.x) * kCsrWarps + threadIdx.x / kWarpSize;
  if (i >= v.rows || !doubt.lifted()) return;
  for (int64_t p = v.indptr[i] + threadIdx.x % kWarpSize; p < v.indptr[i + 1]; p += kWarpSize) {
    const int32_t f = v.indices[p];
    const int64_t at = offset[f] + static_cast<int64_t>(atomicAdd(left + f, ~0ull)) - 1;
    row[at] = static_cast<int32_t>(i - first_row);
    weight[at] = v.values[p];
  }
}

// The `columns` columns of V', of its rows from first_row on; these have `nnz` entries. A column has its rows in the
// order of their arrival: whoever adds along it has one sum for each of them.
inline CsrTensors transposed_rows(const Csr& v, int64_t first_row, int64_t nnz, int64_t columns, const Tensor& like,
                                  cudaStream_t stream, Doubt doubt = {}) {
  const Scratch<unsigned long long> count(columns + 1, like);
  count.fill(0, stream);
  CsrTensors transposed{device_empty(like, {columns + 1}, ScalarType::Long), device_empty(like, {nnz}, ScalarType::Int),
                        device_empty(like, {nnz}, ScalarType::Float)};
  auto& [indptr, indices, values] = transposed;
  if (nnz > 0) {
    LAUNCH(count_columns, blocks_for(nnz), kCsrThreads, 0, stream, v, first_row, nnz, doubt, count.data());
  }
  auto* offset = indptr.mutable_data_ptr<int64_t>();
  exclusive_sum(reinterpret_cast<const int64_t*>(count.data()), offset, columns + 1, like, stream);
  if (nnz > 0) {
    LAUNCH(fill_columns, blocks_for(v.rows - first_row, kCsrWarps), kCsrThreads, 0, stream, v, first_row, doubt, offset,
           count.data(), indices.mutable_data_ptr<int32_t>(), values.mutable_data_ptr<float>());
  }
  return transposed;
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
