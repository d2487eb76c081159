// k-reciprocal encoding; the formulas are in csrc/cpu/k_reciprocal.cpp, the sets in k_reciprocal.cuh.
#include "../math/exp.h"
#include "k_reciprocal.cuh"

namespace ise_fast {
namespace {

struct InnerProduct {
  static __device__ double term(double a, double b) { return a * b; }
};

// Softmax of one row by a warp.
__global__ void softmax_rows(const double* product, Csr star, float* v) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kCsrWarps + threadIdx.x / kWarpSize;
  if (i >= star.rows) return;
  const int64_t begin = star.indptr[i], end = star.indptr[i + 1];
  double best = -INFINITY;
  for (int64_t p = begin + threadIdx.x % kWarpSize; p < end; p += kWarpSize) best = Max{}(best, product[p]);
  best = warp_reduce(best, Max{});
  normalise_row(
      begin, end, [&](int64_t p) { return exp_nonpositive(static_cast<float>(2.0 * (product[p] - best))); }, v);
}

CsrTensors k_reciprocal_encoding(const Tensor& features, const Tensor& neighbours, int64_t k2) {
  check_k_reciprocal_encoding(features, neighbours, k2);
  const DeviceScope device(features);
  const cudaStream_t stream = current_stream(features);
  const Tensor x = device_contiguous(features), table = device_contiguous(neighbours);
  const int64_t rows = table.size(0), k1 = table.size(1);
  if (rows == 0) {
    Tensor indptr = device_empty(table, {1});
    fill_bytes(indptr.mutable_data_ptr<int64_t>(), 0, sizeof(int64_t), stream);
    return {indptr, device_empty(table, {0}, ScalarType::Int), device_empty(x, {0})};
  }

  const Scratch<int32_t> nn = narrowed(table, stream);
  CsrTensors v = expanded_sets(nn.data(), rows, k1, half_width(k1), x, stream);
  auto& [indptr, indices, values] = v;
  const Csr star = device_csr<int32_t, float>(indptr, indices, values);
  {
    const Scratch<double> product(indices.size(0), x);
    symmetric_values<InnerProduct>(x, star, product.data(), stream);
    LAUNCH(softmax_rows, blocks_for(rows, kCsrWarps), kCsrThreads, 0, stream, product.data(), star,
           values.mutable_data_ptr<float>());
  }
  // Not an expansion by one row: a row need not be its own nearest neighbour.
  return k2 == 1 ? v : query_expansion(nn.data(), k1, k2, star, x, stream);
}

}  // namespace

ISE_FAST_CUDA_OPERATORS(m) {
  m.impl("k_reciprocal_encoding", TORCH_BOX(&k_reciprocal_encoding));
}

}  // namespace ise_fast
