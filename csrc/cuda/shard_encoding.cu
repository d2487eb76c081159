// The k-reciprocal encoding for a part of the rows; csrc/cpu/shard_encoding.cpp has the definitions. The kernels are
// those of the whole encoding (k_reciprocal.cuh, pattern.cuh), whose half sets are here bits that others have found.
//
// Indices and offsets are checked before anything follows them, all of nn too: the CPU operators check what they read.
#include "../check_shards.h"
#include "k_reciprocal.cuh"
#include "pattern.cuh"
#include "shard_rows.cuh"

namespace ise_fast {
namespace {

Tensor pattern_products(const Tensor& x, const Tensor& y, const Tensor& indptr, const Tensor& indices,
                        std::string kind) {
  const bool dot = check_pattern_products(x, y, indptr, indices, kind);
  const DeviceScope device(x);
  const cudaStream_t stream = current_stream(x);
  const Tensor left = device_contiguous(x), right = device_contiguous(y), offsets = device_contiguous(indptr),
               columns = device_contiguous(indices);
  const int64_t rows = x.size(0), d = x.size(1), nnz = columns.size(0);
  const auto* offset = offsets.const_data_ptr<int64_t>();
  const auto* index = columns.const_data_ptr<int32_t>();
  const auto bad = first_bad_entry(offset, rows, nnz, RowNumbers{index, y.size(0)}, left, stream);
  if (bad) {
    check(false, "indices: expected 0 to ", y.size(0) - 1, ", got ", read_back(index + bad->entry, stream), " in row ",
          bad->row);
  }
  Tensor product = device_empty(left, {nnz}, ScalarType::Double);
  if (nnz == 0) return product;
  const auto* mine = left.const_data_ptr<float>();
  const auto* others = right.const_data_ptr<float>();
  auto* out = product.mutable_data_ptr<double>();
  const unsigned blocks = blocks_for(rows, kCsrWarps);
  if (dot) {
    LAUNCH(evaluate_pattern<InnerProduct>, blocks, kCsrThreads, 0, stream, mine, others, d, offset, rows, index, out);
  } else {
    LAUNCH(evaluate_pattern<SquaredDistance>, blocks, kCsrThreads, 0, stream, mine, others, d, offset, rows, index,
           out);
  }
  return product;
}

struct FiniteProducts {
  const double* product;

  __device__ bool operator()(int64_t p, int64_t) const {
    return fabs(product[p]) <= std::numeric_limits<double>::max();
  }
};

Tensor softmax_of_products(const Tensor& product, const Tensor& indptr) {
  check_softmax_rows(product, indptr);
  const DeviceScope device(product);
  const cudaStream_t stream = current_stream(product);
  const Tensor source = device_contiguous(product), offsets = device_contiguous(indptr);
  const int64_t nnz = source.size(0), rows = offsets.size(0) - 1;
  const auto* from = source.const_data_ptr<double>();
  const auto* offset = offsets.const_data_ptr<int64_t>();
  const auto bad = first_bad_entry(offset, rows, nnz, FiniteProducts{from}, source, stream);
  if (bad) check(false, "product: expected finite values, got NaN or infinity at ", bad->entry);
  Tensor values = device_empty(source, {nnz}, ScalarType::Float);
  softmax_of_rows(from, offset, rows, values.mutable_data_ptr<float>(), stream);
  return values;
}

// Bit r of row `row`: i = first + row is among the first `width` of its r-th neighbour. A warp a row.
__global__ void mutual_bits(const int32_t* nn, int64_t first, int64_t rows, int64_t k1, int64_t width, int64_t bytes,
                            uint8_t* bits) {
  const int lane = threadIdx.x % kWarpSize;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kCsrWarps + threadIdx.x / kWarpSize, i = first + row;
  if (row >= rows) return;
  for (int64_t start = 0; start < width; start += kWarpSize) {
    const int64_t r = start + lane;
    const bool mutual = r < width && is_listed(nn, k1, width, nn[i * k1 + r], i);
    const unsigned votes = __ballot_sync(kWholeWarp, mutual);
    const int64_t byte = start / 8 + lane;
    if (lane < 4 && byte < bytes) bits[row * bytes + byte] = static_cast<uint8_t>(votes >> 8 * lane);
  }
}

Tensor reciprocal_bits(const Tensor& nn, int64_t begin, int64_t end, int64_t width) {
  check_reciprocal_bits(nn, begin, end, width);
  const DeviceScope device(nn);
  const cudaStream_t stream = current_stream(nn);
  const Tensor table = device_contiguous(nn);
  const int64_t rows = nn.size(0), k1 = nn.size(1), bytes = (width + 7) / 8;
  const auto* neighbour = table.const_data_ptr<int32_t>();
  check_indices(neighbour, rows * k1, k1, rows, "nn", table, stream);
  Tensor bits = device_empty(table, {end - begin, bytes}, ScalarType::Byte);
  if (begin == end) return bits;
  LAUNCH(mutual_bits, blocks_for(end - begin, kCsrWarps), kCsrThreads, 0, stream, neighbour, begin, end - begin, k1,
         width, bytes, bits.mutable_data_ptr<uint8_t>());
  return bits;
}

// Half sets of all rows, as reciprocal_bits tells them.
struct HalfBits {
  const int32_t* nn;
  const uint8_t* bits;
  int64_t k1, width, bytes;

  __device__ bool has(int64_t i, int64_t r) const { return bits[i * bytes + r / 8] >> r % 8 & 1; }
  __device__ int32_t slots(int64_t) const { return static_cast<int32_t>(width); }
  __device__ int32_t item(int64_t i, int64_t r) const { return nn[i * k1 + r]; }
  template <class Visit>
  __device__ void each(int64_t i, const Visit& visit) const {
    for (int64_t r = 0; r < width; ++r) {
      if (has(i, r)) visit(item(i, r));
    }
  }
};

std::tuple<Tensor, Tensor> expanded_sets_of(const Tensor& nn, const Tensor& bits, int64_t width, int64_t begin,
                                            int64_t end) {
  check_expanded_sets(nn, bits, width, begin, end);
  const DeviceScope device(nn);
  const cudaStream_t stream = current_stream(nn);
  const Tensor table = device_contiguous(nn), flags = device_contiguous(bits);
  const int64_t all = nn.size(0), rows = end - begin, k1 = nn.size(1);
  const auto* neighbour = table.const_data_ptr<int32_t>();
  check_indices(neighbour, all * k1, k1, all, "nn", table, stream);
  if (rows == 0) return {device_zeros(table, {1}, ScalarType::Long), device_empty(table, {0})};
  const Scratch<int32_t> items(rows * k1, table), sizes(rows, table);
  const Lists full{items.data(), sizes.data(), k1};
  LAUNCH(reciprocal_sets, blocks_for(rows, kCsrWarps), kCsrThreads, 0, stream, neighbour, begin, rows, k1, k1, full);
  const HalfBits half{neighbour, flags.const_data_ptr<uint8_t>(), k1, width, (width + 7) / 8};
  const Scratch<RowNotes> notes(1, table);
  notes.fill(0, stream);
  const CsrTensors sets =
      joined_sets(full, half, rows, all, k1, width, notes, [](const RowNotes&) {}, table, stream).first;
  return {std::get<0>(sets), std::get<1>(sets)};
}

CsrTensors average_rows(const Tensor& indptr, const Tensor& indices, const Tensor& values, const Tensor& neighbours) {
  check_average_rows(indptr, indices, values, neighbours);
  const DeviceScope device(values);
  const cudaStream_t stream = current_stream(values);
  const Tensor offsets = device_contiguous(indptr), columns = device_contiguous(indices),
               weights = device_contiguous(values), named = device_contiguous(neighbours);
  const Csr v = device_csr<int32_t, float>(offsets, columns, weights);
  const int64_t rows = named.size(0), k2 = named.size(1);
  const auto* name = named.const_data_ptr<int32_t>();
  check_offsets(v.indptr, v.rows, columns.size(0), weights, stream);
  check_indices(name, rows * k2, k2, v.rows, "neighbours", weights, stream);
  if (rows == 0) return compress(nullptr, nullptr, 0, 0, 1, 1.0f, weights, stream);
  constexpr int kColumnBits = 32;  // nobody has said how many columns there are
  return sorted_expansion(name, rows, k2, k2, v, kColumnBits, weights, stream);
}

}  // namespace

ISE_FAST_CUDA_OPERATORS(m) {
  m.impl("pattern_products", TORCH_BOX(&pattern_products));
  m.impl("softmax_rows", TORCH_BOX(&softmax_of_products));
  m.impl("reciprocal_bits", TORCH_BOX(&reciprocal_bits));
  m.impl("expanded_sets", TORCH_BOX(&expanded_sets_of));
  m.impl("average_rows", TORCH_BOX(&average_rows));
}

}  // namespace ise_fast
