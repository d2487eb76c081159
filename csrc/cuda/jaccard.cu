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

// V' on the device.
struct Encoding {
  Tensor indptr, indices, values;

  Encoding(const Tensor& offsets, const Tensor& cols, const Tensor& weights)
      : indptr(device_contiguous(offsets)), indices(device_contiguous(cols)), values(device_contiguous(weights)) {}
  int64_t nnz() const { return indices.size(0); }
  Csr rows() const { return device_csr<int32_t, float>(indptr, indices, values); }
};

Csr csr_of(const CsrTensors& rows) {
  return device_csr<int32_t, float>(std::get<0>(rows), std::get<1>(rows), std::get<2>(rows));
}

// What is wrong with V' is read with the number of pairs: the kernels before ask for themselves.
CsrTensors jaccard_graph(const Tensor& indptr, const Tensor& indices, const Tensor& values, double eps, int64_t begin,
                         int64_t end, int64_t max_pairs) {
  check_jaccard_graph(indptr, indices, values, eps, begin, end, max_pairs);
  const DeviceScope device(values);
  const cudaStream_t stream = current_stream(values);
  const Encoding encoding(indptr, indices, values);
  const Csr v = encoding.rows();
  if (v.rows == 0) {
    check_csr(v, 0, encoding.nnz(), encoding.values, stream);
    return compress(nullptr, nullptr, 0, 0, 1, 1.0f, encoding.values, stream);
  }
  const Scratch<csr::Findings> findings(1, encoding.values);
  findings.fill(0xff, stream);
  look_at_rows(v.indptr, v.rows, encoding.nnz(), graph_entries(v, v.rows), findings.data(), stream);
  const Doubt doubt{findings.data(), encoding.nnz()};
  const CsrTensors columns = transposed_rows(v, 0, encoding.nnz(), v.rows, encoding.values, stream, doubt);
  return pairs_within({v, csr_of(columns), v.rows, true, encoding.nnz(), doubt}, eps, begin, end, max_pairs,
                      encoding.values, stream);
}

Tensor jaccard_distance(const Tensor& indptr, const Tensor& indices, const Tensor& values) {
  check_encoding(indptr, indices, values);
  const DeviceScope device(values);
  const cudaStream_t stream = current_stream(values);
  const Encoding encoding(indptr, indices, values);
  const Csr v = encoding.rows();
  const int64_t n = v.rows;
  check_csr(v, n, encoding.nnz(), encoding.values, stream);
  Tensor distance = device_empty(encoding.values, {n, n});
  if (n == 0) return distance;
  const CsrTensors columns = transposed_rows(v, 0, encoding.nnz(), n, encoding.values, stream);
  LAUNCH(distance_rows, static_cast<unsigned>(n), kHashThreads, 0, stream, v, csr_of(columns),
         distance.mutable_data_ptr<float>());
  return distance;
}

}  // namespace

ISE_FAST_CUDA_OPERATORS(m) {
  m.impl("jaccard_distance", TORCH_BOX(&jaccard_distance));
  m.impl("jaccard_graph", TORCH_BOX(&jaccard_graph));
}

}  // namespace ise_fast
