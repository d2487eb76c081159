// k-reciprocal encoding; the formulas are in csrc/cpu/k_reciprocal.cpp, the sets in k_reciprocal.cuh, the
// values in pattern.cuh.
#include "k_reciprocal.cuh"
#include "pattern.cuh"

namespace ise_fast {
namespace {

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

  const Scratch<RowNotes> notes(1, x);
  notes.fill(0, stream);
  const Scratch<int32_t> nn = narrow(table, &notes.data()->from_bad, stream);
  auto [v, longest] = expanded_sets(
      nn.data(), rows, k1, half_width(k1), notes,
      [&](const RowNotes& found) { check_narrowed(table, found.from_bad, stream); }, x, stream);
  auto& [indptr, indices, values] = v;
  const Csr star = device_csr<int32_t, float>(indptr, indices, values);
  {
    const Scratch<double> product(indices.size(0), x);
    symmetric_values<InnerProduct>(x, star, product.data(), stream);
    softmax_of_rows(product.data(), star.indptr, rows, values.mutable_data_ptr<float>(), stream);
  }
  // Not an expansion by one row: a row need not be its own nearest neighbour.
  return k2 == 1 ? v : query_expansion(nn.data(), rows, k1, k2, star, bits_for(rows), longest, x, stream);
}

}  // namespace

ISE_FAST_CUDA_OPERATORS(m) {
  m.impl("k_reciprocal_encoding", TORCH_BOX(&k_reciprocal_encoding));
}

}  // namespace ise_fast
