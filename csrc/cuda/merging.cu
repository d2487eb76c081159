// One step of bottom-up clustering, as in csrc/cpu/merging.cpp: all pairs sorted, then joined by one thread, since
// whether a pair joins depends on every pair before it. The rest of its block finds the roots of the pairs to come.
#include <tuple>

#include "../check_methods.h"
#include "csr.cuh"
#include "label_order.cuh"
#include "union_find.cuh"

namespace ise_fast {
namespace {

__global__ void negative_label(const int64_t* labels, unsigned long long* first, int64_t n) {
  const int64_t i = thread_index();
  if (i < n && labels[i] < 0) atomicMin(first, static_cast<unsigned long long>(i));
}

// rank[sorted row] = how many labels are lower; head[p]: exclusive sums of "a new label starts here".
__global__ void label_ranks(const int64_t* heads, const uint64_t* keys, const uint32_t* rows, int32_t* rank,
                            unsigned* size, int64_t n) {
  const int64_t p = thread_index();
  if (p >= n) return;
  const bool starts = p == 0 || keys[p] != keys[p - 1];
  const auto r = static_cast<int32_t>(heads[p] + (starts ? 1 : 0) - 1);
  rank[rows[p]] = r;
  atomicAdd(size + r, 1u);
}

template <class Index, class Value>
__global__ void count_pairs(DeviceCsr<Index, Value> graph, const int32_t* rank, int64_t* count) {
  const int64_t i = thread_index();
  if (i > graph.rows) return;
  int64_t pairs = 0;
  for (int64_t p = i < graph.rows ? graph.indptr[i] : 0; i < graph.rows && p < graph.indptr[i + 1]; ++p) {
    pairs += graph.indices[p] > i && rank[graph.indices[p]] != rank[i];
  }
  count[i] = pairs;
}

// Keys of the pairs in the order of (i, j): their dissimilarities as bits, which sort like numbers of at least 0.
template <class Index, class Value>
__global__ void write_pairs(DeviceCsr<Index, Value> graph, const int32_t* rank, const unsigned* size,
                            const int64_t* offset, double penalty, uint64_t* keys, uint32_t* order, int32_t* left,
                            int32_t* right) {
  const int64_t i = thread_index();
  if (i >= graph.rows) return;
  int64_t at = offset[i];
  for (int64_t p = graph.indptr[i]; p < graph.indptr[i + 1]; ++p) {
    const int64_t j = graph.indices[p];
    if (j <= i || rank[j] == rank[i]) continue;
    const double members = static_cast<double>(size[rank[i]] + size[rank[j]]);
    const double d = static_cast<double>(graph.values[p]) + penalty * members + 0.0;
    memcpy(keys + at, &d, sizeof d);
    order[at] = static_cast<uint32_t>(at);
    left[at] = static_cast<int32_t>(i);
    right[at++] = static_cast<int32_t>(j);
  }
}

__global__ void start_parents(int32_t* parent, int64_t clusters) {
  const int64_t c = thread_index();
  if (c < clusters) parent[c] = static_cast<int32_t>(c);
}

__device__ inline int32_t plain_root(const int32_t* parent, int32_t c) {
  while (parent[c] != c) c = parent[c];
  return c;
}

// By one block. Each of its threads looks up a pair and the roots of both clusters; the first one then joins them in
// order. A root that an earlier pair of the same round has hung elsewhere is a few steps from its new root.
__global__ void join_pairs(const uint64_t* keys, const uint32_t* order, const int32_t* left, const int32_t* right,
                           const int32_t* rank, int32_t* parent, int64_t pairs, int64_t merges, int64_t* rows,
                           double* dissimilarity, int64_t* joined) {
  __shared__ int32_t row[kCsrThreads][2], root[kCsrThreads][2];
  __shared__ int64_t done;
  const auto me = static_cast<int>(threadIdx.x);
  if (me == 0) done = 0;
  __syncthreads();
  for (int64_t begin = 0; begin < pairs && done < merges; begin += kCsrThreads) {
    const int here = static_cast<int>(pairs - begin < kCsrThreads ? pairs - begin : kCsrThreads);
    if (me < here) {
      const uint32_t p = order[begin + me];
      row[me][0] = left[p];
      row[me][1] = right[p];
      for (int side = 0; side < 2; ++side) root[me][side] = find_root(parent, rank[row[me][side]]);
    }
    __syncthreads();
    if (me == 0) {
      int64_t now = done;
      for (int t = 0; t < here && now < merges; ++t) {
        const int32_t a = plain_root(parent, root[t][0]), b = plain_root(parent, root[t][1]);
        if (a == b) continue;
        parent[a < b ? b : a] = a < b ? a : b;
        rows[2 * now] = row[t][0];
        rows[2 * now + 1] = row[t][1];
        memcpy(dissimilarity + now, keys + begin + t, sizeof *keys);
        ++now;
      }
      done = now;
    }
    __syncthreads();
  }
  if (me == 0) *joined = done;
}

__global__ void count_roots(const int32_t* parent, int64_t* root, int64_t clusters) {
  const int64_t c = thread_index();
  if (c < clusters) root[c] = parent[c] == c;
}

__global__ void number_rows(const int32_t* rank, const int32_t* parent, const int64_t* number, int64_t* labels,
                            int64_t n) {
  const int64_t i = thread_index();
  if (i >= n) return;
  int32_t c = rank[i];
  while (parent[c] != c) c = parent[c];
  labels[i] = number[c];
}

template <class Index, class Value>
std::tuple<Tensor, Tensor, Tensor> merge(const DeviceCsr<Index, Value>& graph, int64_t nnz, const Tensor& labels,
                                         double penalty, int64_t merges) {
  const Tensor y = device_contiguous(labels);
  const int64_t n = graph.rows;
  const cudaStream_t stream = current_stream(y);
  check_csr(graph, graph.rows, nnz, y, stream);
  check(nnz < (int64_t{1} << 32), "graph: expected fewer than 2^32 entries, got ", nnz);
  Tensor out = device_empty(y, {n});
  const auto none = [&] { return std::tuple(out, device_empty(y, {0, 2}), device_empty(y, {0}, ScalarType::Double)); };
  if (n == 0) return none();
  const Scratch<unsigned long long> first(1, y);
  first.fill(0xff, stream);
  LAUNCH(negative_label, blocks_for(n), kCsrThreads, 0, stream, y.const_data_ptr<int64_t>(), first.data(), n);
  const unsigned long long bad = read_back(first.data(), stream);
  check(bad == kNowhere, "labels: expected at least 0, got ",
        bad == kNowhere ? 0 : read_back(y.const_data_ptr<int64_t>() + bad, stream), " at row ", bad);

  const Scratch<uint64_t> keys(n, y), sorted(n, y);
  const Scratch<uint32_t> rows(n, y), sorted_rows(n, y);
  const Scratch<int64_t> heads(n + 1, y);
  const Scratch<int32_t> rank(n, y), parent(n, y);
  const Scratch<unsigned> size(n, y);
  sort_by_label(y.const_data_ptr<int64_t>(), keys.data(), rows.data(), sorted.data(), sorted_rows.data(), n, y, stream,
                64);
  LAUNCH(csr::mark_heads, blocks_for(n + 1), kCsrThreads, 0, stream, sorted.data(), n, heads.data());
  exclusive_sum(heads.data(), heads.data(), n + 1, y, stream);
  const int64_t clusters = read_back(heads.data() + n, stream);
  size.fill(0, stream);
  LAUNCH(label_ranks, blocks_for(n), kCsrThreads, 0, stream, heads.data(), sorted.data(), sorted_rows.data(),
         rank.data(), size.data(), n);

  const Scratch<int64_t> offset(n + 1, y);
  LAUNCH((count_pairs<Index, Value>), blocks_for(n + 1), kCsrThreads, 0, stream, graph, rank.data(), offset.data());
  exclusive_sum(offset.data(), offset.data(), n + 1, y, stream);
  const int64_t pairs = read_back(offset.data() + n, stream);
  const Scratch<uint64_t> pair_keys(pairs, y), pair_sorted(pairs, y);
  const Scratch<uint32_t> order(pairs, y), pair_order(pairs, y);
  const Scratch<int32_t> left(pairs, y), right(pairs, y);
  if (pairs > 0) {
    LAUNCH((write_pairs<Index, Value>), blocks_for(n), kCsrThreads, 0, stream, graph, rank.data(), size.data(),
           offset.data(), penalty, pair_keys.data(), order.data(), left.data(), right.data());
    sort_pairs(pair_keys.data(), pair_sorted.data(), order.data(), pair_order.data(), pairs, y, stream);
  }
  const int64_t most = std::min(merges, clusters - 1);
  Tensor joined_rows = device_empty(y, {most, 2});
  Tensor dissimilarity = device_empty(y, {most}, ScalarType::Double);
  const Scratch<int64_t> joined(1, y);
  LAUNCH(start_parents, blocks_for(clusters), kCsrThreads, 0, stream, parent.data(), clusters);
  LAUNCH(join_pairs, 1, kCsrThreads, 0, stream, pair_sorted.data(), pair_order.data(), left.data(), right.data(),
         rank.data(), parent.data(), pairs, most, joined_rows.mutable_data_ptr<int64_t>(),
         dissimilarity.mutable_data_ptr<double>(), joined.data());
  LAUNCH(count_roots, blocks_for(clusters), kCsrThreads, 0, stream, parent.data(), heads.data(), clusters);
  exclusive_sum(heads.data(), heads.data(), clusters, y, stream);
  LAUNCH(number_rows, blocks_for(n), kCsrThreads, 0, stream, rank.data(), parent.data(), heads.data(),
         out.mutable_data_ptr<int64_t>(), n);
  const int64_t count = read_back(joined.data(), stream);
  return {out, torch::stable::clone(torch::stable::narrow(joined_rows, 0, 0, count)),
          torch::stable::clone(torch::stable::narrow(dissimilarity, 0, 0, count))};
}

std::tuple<Tensor, Tensor, Tensor> merge_nearest(const Tensor& indptr, const Tensor& indices, const Tensor& values,
                                                 const Tensor& labels, double penalty, int64_t merges) {
  check_merge_nearest(indptr, indices, values, labels, penalty, merges);
  const DeviceScope device(indptr);
  const Tensor p = device_contiguous(indptr), i = device_contiguous(indices), v = device_contiguous(values);
  const auto run = [&]<class Index, class Value>(Index, Value) {
    return merge(device_csr<Index, Value>(p, i, v), i.numel(), labels, penalty, merges);
  };
  const bool narrow = i.scalar_type() == ScalarType::Int, single = v.scalar_type() == ScalarType::Float;
  if (narrow) return single ? run(int32_t{}, float{}) : run(int32_t{}, double{});
  return single ? run(int64_t{}, float{}) : run(int64_t{}, double{});
}

}  // namespace

ISE_FAST_CUDA_OPERATORS(m) {
  m.impl("merge_nearest", TORCH_BOX(&merge_nearest));
}

}  // namespace ise_fast
