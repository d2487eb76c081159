// k-reciprocal encoding; the formulas are in csrc/cpu/k_reciprocal.cpp.
//
// Sets and query expansion are written as unordered (row, column) keys, sorted and compressed (csr.cuh): any k1 and k2,
// no limit on the size of a set, work spread evenly whatever the hubs. Rows go in ranges that keep the scratch bounded.
#include <tuple>

#include "../math/dot.h"
#include "../math/exp.h"
#include "../math/k_reciprocal.h"
#include "csr.cuh"

namespace ise_fast {
namespace {

using Csr = DeviceCsr<int32_t, float>;

// One short list per row.
struct Lists {
  int32_t* items;
  int32_t* sizes;
  int64_t stride;

  __device__ bool contains(int64_t i, int32_t j) const {
    for (int32_t s = 0; s < sizes[i]; ++s) {
      if (items[i * stride + s] == j) return true;
    }
    return false;
  }
};

// Neighbours in 32 bits; the position of the first one that is no row goes to `first_bad`.
__global__ void narrow_neighbours(const int64_t* wide, int64_t n, int64_t rows, int32_t* narrow,
                                  unsigned long long* first_bad) {
  const int64_t p = thread_index();
  if (p >= n) return;
  const bool good = 0 <= wide[p] && wide[p] < rows;
  narrow[p] = good ? static_cast<int32_t>(wide[p]) : 0;
  if (!good) atomicMin(first_bad, static_cast<unsigned long long>(p));
}

// Row i, by a warp: those of its first `width` neighbours that have i among their first `width`.
__global__ void reciprocal_sets(const int32_t* nn, int64_t rows, int64_t k1, int64_t width, Lists sets) {
  const int lane = threadIdx.x % kWarpSize;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kCsrWarps + threadIdx.x / kWarpSize;
  if (i >= rows) return;
  int32_t size = 0;
  for (int64_t first = 0; first < width; first += kWarpSize) {
    const int64_t r = first + lane;
    const int32_t j = r < width ? nn[i * k1 + r] : 0;
    bool mutual = false;
    for (int64_t s = 0; r < width && s < width && !mutual; ++s) mutual = nn[j * k1 + s] == i;
    const unsigned votes = __ballot_sync(kWholeWarp, mutual);
    if (mutual) sets.items[i * sets.stride + size + __popc(votes & ((1u << lane) - 1))] = j;
    size += __popc(votes);
  }
  if (lane == 0) sets.sizes[i] = size;
}

// Does the half set of the r-th member of R(i) join R*(i)? Also counts the entries, with repeats, that R*(i) is made
// of.
__global__ void choose_half_sets(Lists full, Lists half, int64_t rows, int64_t k1, uint8_t* joined,
                                 unsigned long long* count) {
  const int64_t t = thread_index(), i = t / k1, r = t % k1;
  if (i >= rows || r >= full.sizes[i]) return;
  const int32_t c = full.items[i * full.stride + r], size = half.sizes[c];
  int64_t common = 0;
  for (int32_t s = 0; s < size; ++s) common += full.contains(i, half.items[c * half.stride + s]);
  joined[t] = joins(common, size);
  atomicAdd(count + i, 1ull + (joined[t] ? size : 0));
}

// The entries of rows [begin, end), in any order within a row; cursor[i] starts at the row's place in `key`.
__global__ void write_star(Lists full, Lists half, int64_t begin, int64_t end, int64_t k1, const uint8_t* joined,
                           int column_bits, unsigned long long* cursor, uint64_t* key) {
  const int64_t t = begin * k1 + thread_index(), i = t / k1, r = t % k1;
  if (i >= end || r >= full.sizes[i]) return;
  const int32_t c = full.items[i * full.stride + r], size = joined[t] ? half.sizes[c] : 0;
  uint64_t* out = key + atomicAdd(cursor + i, 1ull + size);
  const auto row = static_cast<uint64_t>(i - begin) << column_bits;
  *out = row | c;
  for (int32_t s = 0; s < size; ++s) *++out = row | half.items[c * half.stride + s];
}

// x_i.x_j for the entries of row i, by a warp. (i, j) with j < i is left to copy_mirrored where (j, i) is stored too.
__global__ void inner_products(const float* feature, int64_t d, Csr star, double* product) {
  const int lane = threadIdx.x % kWarpSize;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kCsrWarps + threadIdx.x / kWarpSize;
  if (i >= star.rows) return;
  for (int64_t p = star.indptr[i]; p < star.indptr[i + 1]; ++p) {
    const int64_t j = star.indices[p];
    if (j < i && star.find(j, static_cast<int32_t>(i)) >= 0) continue;
    const double sum = warp_sum(dot_lane(feature + i * d, feature + j * d, d, lane));
    if (lane == 0) product[p] = sum;
  }
}

__global__ void copy_mirrored(Csr star, double* product) {
  const int lane = threadIdx.x % kWarpSize;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kCsrWarps + threadIdx.x / kWarpSize;
  if (i >= star.rows) return;
  for (int64_t p = star.indptr[i] + lane; p < star.indptr[i + 1] && star.indices[p] < i; p += kWarpSize) {
    const int64_t mirror = star.find(star.indices[p], static_cast<int32_t>(i));
    if (mirror >= 0) product[p] = product[mirror];
  }
}

// Softmax of one row by a warp; the numerators are added in float64 in ascending column order, as on the CPU.
__global__ void softmax_rows(const double* product, Csr star, float* v) {
  const int lane = threadIdx.x % kWarpSize;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kCsrWarps + threadIdx.x / kWarpSize;
  if (i >= star.rows) return;
  const int64_t begin = star.indptr[i], end = star.indptr[i + 1];
  double best = -INFINITY;
  for (int64_t p = begin + lane; p < end; p += kWarpSize) best = Max{}(best, product[p]);
  best = warp_reduce(best, Max{});
  double sum = 0.0;
  for (int64_t first = begin; first < end; first += kWarpSize) {
    const int64_t p = first + lane;
    const float numerator = p < end ? exp_nonpositive(static_cast<float>(2.0 * (product[p] - best))) : 0.0f;
    if (p < end) v[p] = numerator;
    for (int l = 0; l < kWarpSize; ++l) {
      const float term = __shfl_sync(kWholeWarp, numerator, l);
      if (first + l < end) sum += term;
    }
  }
  for (int64_t p = begin + lane; p < end; p += kWarpSize) v[p] = static_cast<float>(v[p] / sum);
}

// Entries that the k2 rows of v behind row i have together; 0 for i = rows.
__global__ void expansion_counts(const int32_t* nn, int64_t k1, int64_t k2, Csr v, int64_t* count) {
  const int64_t i = thread_index();
  if (i > v.rows) return;
  int64_t sum = 0;
  for (int64_t r = 0; r < k2 && i < v.rows; ++r) {
    const int64_t j = nn[i * k1 + r];
    sum += v.indptr[j + 1] - v.indptr[j];
  }
  count[i] = sum;
}

// The rows of v behind row i, in rank order, by a warp.
__global__ void write_expansion(const int32_t* nn, int64_t begin, int64_t end, int64_t k1, int64_t k2, Csr v,
                                const int64_t* offset, int column_bits, uint64_t* key, uint32_t* value_bits) {
  const int lane = threadIdx.x % kWarpSize;
  const int64_t i = begin + static_cast<int64_t>(blockIdx.x) * kCsrWarps + threadIdx.x / kWarpSize;
  if (i >= end) return;
  int64_t at = offset[i] - offset[begin];
  for (int64_t r = 0; r < k2; ++r) {
    const int64_t j = nn[i * k1 + r], first = v.indptr[j], size = v.indptr[j + 1] - first;
    for (int64_t s = lane; s < size; s += kWarpSize) {
      key[at + s] = static_cast<uint64_t>(i - begin) << column_bits | v.indices[first + s];
      value_bits[at + s] = __float_as_uint(v.values[first + s]);
    }
    at += size;
  }
}

__global__ void start_cursors(const int64_t* offset, int64_t begin, int64_t end, unsigned long long* cursor) {
  const int64_t i = begin + thread_index();
  if (i < end) cursor[i] = offset[i] - offset[begin];
}

CsrTensors expanded_sets(const int32_t* nn, int64_t rows, int64_t k1, const Tensor& like, cudaStream_t stream) {
  const int64_t width = half_width(k1);
  const Scratch<int32_t> full_items(rows * k1, like), full_sizes(rows, like), half_items(rows * width, like),
      half_sizes(rows, like);
  const Lists full{full_items.data(), full_sizes.data(), k1}, half{half_items.data(), half_sizes.data(), width};
  const unsigned row_blocks = blocks_for(rows, kCsrWarps);
  LAUNCH(reciprocal_sets, row_blocks, kCsrThreads, 0, stream, nn, rows, k1, k1, full);
  LAUNCH(reciprocal_sets, row_blocks, kCsrThreads, 0, stream, nn, rows, k1, width, half);

  const Scratch<uint8_t> joined(rows * k1, like);
  const Scratch<unsigned long long> count(rows + 1, like);
  count.fill(0, stream);
  LAUNCH(choose_half_sets, blocks_for(rows * k1), kCsrThreads, 0, stream, full, half, rows, k1, joined.data(),
         count.data());
  const Scratch<int64_t> offset(rows + 1, like);
  exclusive_sum(reinterpret_cast<const int64_t*>(count.data()), offset.data(), rows + 1, like, stream);

  std::vector<CsrTensors> parts;
  const std::vector<int64_t> bounds = split_rows(offset.data(), rows, entry_budget(), stream);
  for (size_t part = 0; part + 1 < bounds.size(); ++part) {
    const int64_t begin = bounds[part], end = bounds[part + 1];
    const int64_t n = read_back(offset.data() + end, stream) - read_back(offset.data() + begin, stream);
    const Scratch<uint64_t> key(n, like);
    LAUNCH(start_cursors, blocks_for(end - begin), kCsrThreads, 0, stream, offset.data(), begin, end, count.data());
    LAUNCH(write_star, blocks_for((end - begin) * k1), kCsrThreads, 0, stream, full, half, begin, end, k1,
           joined.data(), bits_for(rows), count.data(), key.data());
    parts.push_back(sort_and_compress(key, nullptr, n, end - begin, bits_for(rows), 1.0f, like, stream));
  }
  return concatenate(parts, like, stream);
}

CsrTensors query_expansion(const int32_t* nn, int64_t k1, int64_t k2, const Csr& v, const Tensor& like,
                           cudaStream_t stream) {
  const Scratch<int64_t> offset(v.rows + 1, like);
  LAUNCH(expansion_counts, blocks_for(v.rows + 1), kCsrThreads, 0, stream, nn, k1, k2, v, offset.data());
  exclusive_sum(offset.data(), offset.data(), v.rows + 1, like, stream);
  std::vector<CsrTensors> parts;
  const std::vector<int64_t> bounds = split_rows(offset.data(), v.rows, entry_budget(), stream);
  for (size_t part = 0; part + 1 < bounds.size(); ++part) {
    const int64_t begin = bounds[part], end = bounds[part + 1];
    const int64_t n = read_back(offset.data() + end, stream) - read_back(offset.data() + begin, stream);
    const Scratch<uint64_t> key(n, like);
    const Scratch<uint32_t> value_bits(n, like);
    LAUNCH(write_expansion, blocks_for(end - begin, kCsrWarps), kCsrThreads, 0, stream, nn, begin, end, k1, k2, v,
           offset.data(), bits_for(v.rows), key.data(), value_bits.data());
    parts.push_back(
        sort_and_compress(key, &value_bits, n, end - begin, bits_for(v.rows), static_cast<float>(k2), like, stream));
  }
  return concatenate(parts, like, stream);
}

CsrTensors k_reciprocal_encoding(const Tensor& features, const Tensor& neighbours, int64_t k2) {
  check_k_reciprocal_encoding(features, neighbours, k2);
  const DeviceScope device(features);
  const cudaStream_t stream = current_stream(features);
  const Tensor x = torch::stable::contiguous(features), table = torch::stable::contiguous(neighbours);
  const int64_t rows = table.size(0), k1 = table.size(1);
  if (rows == 0) {
    Tensor indptr = torch::stable::new_empty(table, {1});
    fill_bytes(indptr.mutable_data_ptr<int64_t>(), 0, sizeof(int64_t), stream);
    return {indptr, torch::stable::new_empty(table, {0}, ScalarType::Int), torch::stable::new_empty(x, {0})};
  }

  const Scratch<int32_t> nn(rows * k1, x);
  const Scratch<unsigned long long> first_bad(1, x);
  first_bad.fill(0xff, stream);
  LAUNCH(narrow_neighbours, blocks_for(rows * k1), kCsrThreads, 0, stream, table.const_data_ptr<int64_t>(), rows * k1,
         rows, nn.data(), first_bad.data());
  const auto bad = read_back(first_bad.data(), stream);
  check(bad == kNowhere, "nn: expected 0 to ", rows - 1, ", got ",
        bad == kNowhere ? 0 : read_back(table.const_data_ptr<int64_t>() + bad, stream), " in row ", bad / k1);

  CsrTensors v = expanded_sets(nn.data(), rows, k1, x, stream);
  auto& [indptr, indices, values] = v;
  const Csr star = device_csr<int32_t, float>(indptr, indices, values);
  {
    const Scratch<double> product(indices.size(0), x);
    const unsigned blocks = blocks_for(rows, kCsrWarps);
    LAUNCH(inner_products, blocks, kCsrThreads, 0, stream, x.const_data_ptr<float>(), x.size(1), star, product.data());
    LAUNCH(copy_mirrored, blocks, kCsrThreads, 0, stream, star, product.data());
    LAUNCH(softmax_rows, blocks, kCsrThreads, 0, stream, product.data(), star, values.mutable_data_ptr<float>());
  }
  // Not an expansion by one row: a row need not be its own nearest neighbour.
  return k2 == 1 ? v : query_expansion(nn.data(), k1, k2, star, x, stream);
}

}  // namespace

ISE_FAST_CUDA_OPERATORS(m) {
  m.impl("k_reciprocal_encoding", TORCH_BOX(&k_reciprocal_encoding));
}

}  // namespace ise_fast
