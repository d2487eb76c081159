// Jaccard distance of k-reciprocal encodings; the formulas are in csrc/cpu/jaccard.cpp.
#include "shared_pairs.cuh"

namespace ise_fast {
namespace {

constexpr uint32_t kDistanceSlots = 1024;  // 8 KB

// Row blockIdx.x of the dense matrix. Nearly all of its numbers are those of rows that share nothing: they are written
// once, and the others, summed up in shared memory, over them. Only a row that does not fit there is summed up in
// place.
__global__ void __launch_bounds__(kHashThreads) distance_rows(Csr v, Csr columns, float* distance) {
  __shared__ uint32_t key[kDistanceSlots];
  __shared__ float sum[kDistanceSlots];
  const int64_t i = blockIdx.x;
  float* const row = distance + i * v.rows;
  if (!hash_row(v, columns, i, false, kDistanceSlots, key, sum)) {
    sum_shared_mass(v, columns, i, v.rows, row);
    for (int64_t j = threadIdx.x; j < v.rows; j += kHashThreads) row[j] = jaccard_from_shared(row[j]);
    return;
  }
  for (int64_t j = threadIdx.x; j < v.rows; j += kHashThreads) row[j] = jaccard_from_shared(0.0f);
  __syncthreads();
  for (uint32_t slot = threadIdx.x; slot < kDistanceSlots; slot += kHashThreads) {
    if (key[slot] != HashTable::kEmpty) row[key[slot]] = jaccard_from_shared(sum[slot]);
  }
}

// V' on the device, checked, and its columns.
struct Encoding {
  Tensor indptr, indices, values;
  CsrTensors transposed;

  Encoding(const Tensor& offsets, const Tensor& cols, const Tensor& weights, cudaStream_t stream)
      : indptr(device_contiguous(offsets)), indices(device_contiguous(cols)), values(device_contiguous(weights)) {
    const int64_t nnz = indices.size(0);
    check_csr(rows(), rows().rows, nnz, values, stream);
    transposed = transposed_rows(rows(), 0, nnz, rows().rows, values, stream);
  }
  Csr rows() const { return device_csr<int32_t, float>(indptr, indices, values); }
  Csr columns() const {
    return device_csr<int32_t, float>(std::get<0>(transposed), std::get<1>(transposed), std::get<2>(transposed));
  }
};

CsrTensors jaccard_graph(const Tensor& indptr, const Tensor& indices, const Tensor& values, double eps, int64_t begin,
                         int64_t end, int64_t max_pairs) {
  check_jaccard_graph(indptr, indices, values, eps, begin, end, max_pairs);
  const DeviceScope device(values);
  const cudaStream_t stream = current_stream(values);
  const Encoding v(indptr, indices, values, stream);
  return pairs_within({v.rows(), v.columns(), v.rows().rows, true}, eps, begin, end, max_pairs, v.values, stream);
}

Tensor jaccard_distance(const Tensor& indptr, const Tensor& indices, const Tensor& values) {
  check_encoding(indptr, indices, values);
  const DeviceScope device(values);
  const cudaStream_t stream = current_stream(values);
  const Encoding v(indptr, indices, values, stream);
  const int64_t n = v.rows().rows;
  Tensor distance = device_empty(v.values, {n, n});
  if (n > 0) {
    LAUNCH(distance_rows, static_cast<unsigned>(n), kHashThreads, 0, stream, v.rows(), v.columns(),
           distance.mutable_data_ptr<float>());
  }
  return distance;
}

}  // namespace

ISE_FAST_CUDA_OPERATORS(m) {
  m.impl("jaccard_distance", TORCH_BOX(&jaccard_distance));
  m.impl("jaccard_graph", TORCH_BOX(&jaccard_graph));
}

}  // namespace ise_fast
