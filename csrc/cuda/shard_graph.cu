// The Jaccard distance between two blocks of rows of V', and the union-find of DBSCAN on edges at hand;
// csrc/cpu/shard_graph.cpp has the definitions. The kernels are those of the whole graph (shared_pairs.cuh) and of
// DBSCAN (union_find.cuh).
#include "../check_shards.h"
#include "shard_rows.cuh"
#include "shared_pairs.cuh"
#include "union_find.cuh"

namespace ise_fast {
namespace {

constexpr int64_t kColumns = std::numeric_limits<int32_t>::max();  // of V', as many as there may be rows in all
constexpr int kColumnBits = 31;

__global__ void find_heavy_rows(Csr v, unsigned long long* first_bad) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kCsrWarps + threadIdx.x / kWarpSize;
  if (i >= v.rows) return;
  double sum = 0;
  for (int64_t p = v.indptr[i] + threadIdx.x % kWarpSize; p < v.indptr[i + 1]; p += kWarpSize) sum += v.values[p];
  sum = warp_sum(sum);
  if (threadIdx.x % kWarpSize == 0 && !(sum < 2)) atomicMin(first_bad, static_cast<unsigned long long>(i));
}

// Rows of weights, checked.
struct Weights {
  Tensor indptr, indices, values;

  Weights(const Tensor& offsets, const Tensor& columns, const Tensor& weights, cudaStream_t stream)
      : indptr(device_contiguous(offsets)), indices(device_contiguous(columns)), values(device_contiguous(weights)) {
    const Csr v = csr();
    check_csr(v, kColumns, nnz(), values, stream);
    if (v.rows == 0) return;
    const Scratch<unsigned long long> first_bad(1, values);
    first_bad.fill(0xff, stream);
    LAUNCH(find_heavy_rows, blocks_for(v.rows, kCsrWarps), kCsrThreads, 0, stream, v, first_bad.data());
    const auto bad = read_back(first_bad.data(), stream);
    if (bad != kNowhere) check_row_sum(static_cast<int64_t>(bad), stream);
  }
  int64_t nnz() const { return indices.size(0); }
  Csr csr() const { return device_csr<int32_t, float>(indptr, indices, values); }

private:
  // The sum in the order of the CPU, for the same words.
  void check_row_sum(int64_t row, cudaStream_t stream) const {
    double sum = 0;
    const int64_t end = read_back(csr().indptr + row + 1, stream);
    for (int64_t p = read_back(csr().indptr + row, stream); p < end; ++p) sum += read_back(csr().values + p, stream);
    check_weight_sum(sum, row);
  }
};

__global__ void widen_columns(const int32_t* column, int64_t n, uint64_t* key) {
  const int64_t p = thread_index();
  if (p < n) key[p] = static_cast<uint32_t>(column[p]);
}

// place[p]: where column[p] stands in `names` [count], ascending; `count` where it does not.
__global__ void find_places(const int32_t* column, int64_t n, const int32_t* names, int64_t count, int32_t* place) {
  const int64_t p = thread_index();
  if (p >= n) return;
  int64_t low = 0, high = count;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (names[middle] < column[p]) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  place[p] = static_cast<int32_t>(low < count && names[low] == column[p] ? low : count);
}

// The columns that occur in v, ascending.
Tensor names_of_columns(const Weights& v, cudaStream_t stream) {
  const Scratch<uint64_t> key(v.nnz(), v.values);
  if (v.nnz() > 0) {
    LAUNCH(widen_columns, blocks_for(v.nnz()), kCsrThreads, 0, stream, v.csr().indices, v.nnz(), key.data());
  }
  return std::get<1>(sort_and_compress(key, nullptr, v.nnz(), 1, kColumnBits, 1.0f, v.values, stream));
}

// v with the places of its columns among `names` instead of them.
Scratch<int32_t> places_of(const Weights& v, const Tensor& names, cudaStream_t stream) {
  const Scratch<int32_t> place(v.nnz(), v.values);
  if (v.nnz() > 0) {
    LAUNCH(find_places, blocks_for(v.nnz()), kCsrThreads, 0, stream, v.csr().indices, v.nnz(),
           names.const_data_ptr<int32_t>(), names.size(0), place.data());
  }
  return place;
}

// Only the columns that b has are stored: as many as there are rows in all would be too many for a block.
CsrTensors jaccard_pairs(const Tensor& a_indptr, const Tensor& a_indices, const Tensor& a_values,
                         const Tensor& b_indptr, const Tensor& b_indices, const Tensor& b_values, bool same, double eps,
                         int64_t max_pairs) {
  check_jaccard_pairs(eps, max_pairs);
  check_weights(a_indptr, a_indices, a_values);
  check_weights(b_indptr, b_indices, b_values);
  check_same_device(b_indptr, "b_indptr", a_indptr, "a_indptr");
  const DeviceScope device(a_values);
  const cudaStream_t stream = current_stream(a_values);
  const Weights a(a_indptr, a_indices, a_values, stream), b(b_indptr, b_indices, b_values, stream);
  const int64_t rows = a.csr().rows, others = b.csr().rows;
  check(!same || rows == others, "same: expected as many rows in b as in a, ", rows, ", got ", others);
  check(others < (int64_t{1} << 31) - 1, "b_indptr: expected fewer than 2^31 - 1 rows, got ", others);

  const Tensor names = names_of_columns(b, stream);
  const int64_t columns = names.size(0) + 1;  // the last one is empty, for what b does not have
  CsrTensors transposed;
  {
    const Scratch<int32_t> place = places_of(b, names, stream);
    const Csr placed{others, b.csr().indptr, place.data(), b.csr().values};
    transposed = transposed_rows(placed, 0, b.nnz(), columns, b.values, stream);
  }
  const Scratch<int32_t> place = places_of(a, names, stream);
  const auto& [indptr, indices, values] = transposed;
  const Blocks blocks{{rows, a.csr().indptr, place.data(), a.csr().values},
                      device_csr<int32_t, float>(indptr, indices, values),
                      others,
                      same,
                      a.nnz(),
                      {}};
  return pairs_within(blocks, eps, 0, rows, max_pairs, a.values, stream);
}

// A parent that is no row before its child.
__global__ void find_bad_parent(const int32_t* parent, int64_t rows, unsigned long long* first_bad) {
  const int64_t i = thread_index();
  if (i < rows && !(0 <= parent[i] && parent[i] <= i)) atomicMin(first_bad, static_cast<unsigned long long>(i));
}

__global__ void unite_edges(const int32_t* first, const int32_t* second, int64_t edges, int32_t* parent) {
  const int64_t e = thread_index();
  if (e < edges) unite(parent, first[e], second[e]);
}

__global__ void write_roots(int32_t* parent, int64_t rows, int64_t stride, int32_t* out) {
  const int64_t i = thread_index();
  if (i < rows) out[i * stride] = find_root(parent, static_cast<int32_t>(i));
}

// On a copy, so that nothing is written by a call that is refused or interrupted.
void unite_(Tensor parent, const Tensor& first, const Tensor& second) {
  check_unite(parent, first, second);
  const DeviceScope device(parent);
  const cudaStream_t stream = current_stream(parent);
  const Tensor one = device_contiguous(first), two = device_contiguous(second);
  const int64_t rows = parent.size(0), edges = one.size(0);
  const auto *from = one.const_data_ptr<int32_t>(), *to = two.const_data_ptr<int32_t>();
  Tensor copy = device_empty(parent, {rows});
  torch::stable::copy_(copy, parent);
  auto* root = copy.mutable_data_ptr<int32_t>();
  if (rows > 0) {
    const Scratch<unsigned long long> first_bad(1, parent);
    first_bad.fill(0xff, stream);
    LAUNCH(find_bad_parent, blocks_for(rows), kCsrThreads, 0, stream, root, rows, first_bad.data());
    const auto bad = read_back(first_bad.data(), stream);
    if (bad != kNowhere) {
      check(false, "parent: expected 0 to ", bad, " at ", bad, ", got ", read_back(root + bad, stream));
    }
  }
  check_indices(from, edges, 1, rows, "first", parent, stream);
  check_indices(to, edges, 1, rows, "second", parent, stream);
  if (edges > 0) LAUNCH(unite_edges, blocks_for(edges), kCsrThreads, 0, stream, from, to, edges, root);
  if (rows > 0) {
    LAUNCH(write_roots, blocks_for(rows), kCsrThreads, 0, stream, root, rows, parent.stride(0),
           parent.mutable_data_ptr<int32_t>());
  }
}

}  // namespace

ISE_FAST_CUDA_OPERATORS(m) {
  m.impl("jaccard_pairs", TORCH_BOX(&jaccard_pairs));
  m.impl("unite_", TORCH_BOX(&unite_));
}

}  // namespace ise_fast
