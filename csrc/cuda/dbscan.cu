// DBSCAN on a distance graph with the labels of scikit-learn.
//
// Core points by counting; components of the core-core graph by lock-free union-find, whose roots are the smallest core
// of each component; roots numbered in ascending order; a border point takes the smallest number among the core points
// that list it. That is scikit-learn's answer if the core-core graph is symmetric. If it is not, the answer depends on
// the order of a directed depth-first search, which is sequential: such graphs go to the CPU operator.
#include <tuple>

#include "csr.cuh"
#include "union_find.cuh"

namespace ise_fast {
namespace {

constexpr int kAhead = 8;  // distances of a dense row that a lane reads before it visits any
constexpr int64_t kNoCluster = std::numeric_limits<int64_t>::max();

// Both kinds of graph: a warp visits the neighbours of i within the bound.
template <class Index, class Value>
struct SparseGraph {
  DeviceCsr<Index, Value> csr;
  Value bound;
  int64_t nnz;
  const csr::Findings* findings;  // the host reads them when all is done

  __device__ bool usable() const { return findings->nothing(nnz); }
  __device__ int64_t rows() const { return csr.rows; }
  template <class Visit>
  __device__ void neighbours(int64_t i, const Visit& visit) const {
    for (int64_t p = csr.indptr[i] + threadIdx.x % kWarpSize; p < csr.indptr[i + 1]; p += kWarpSize) {
      if (csr.values[p] <= bound) visit(static_cast<int64_t>(csr.indices[p]));
    }
  }
  __device__ bool within(int64_t i, int64_t j) const {
    const int64_t p = csr.find(i, static_cast<Index>(j));
    return p >= 0 && csr.values[p] <= bound;
  }
  // A diagonal that is not stored counts as self.
  __device__ int64_t implicit_self(int64_t i) const { return csr.find(i, static_cast<Index>(i)) < 0; }
};

template <class Value>
struct DenseGraph {
  const Value* distance;
  int64_t size;
  Value bound;

  __device__ bool usable() const { return true; }  // whatever the numbers are, nothing follows them
  __device__ int64_t rows() const { return size; }
  template <class Visit>
  __device__ void neighbours(int64_t i, const Visit& visit) const {
    for (int64_t first = 0; first < size; first += kAhead * kWarpSize) {
      bool near[kAhead];
#pragma unroll
      for (int a = 0; a < kAhead; ++a) {
        const int64_t j = first + a * kWarpSize + threadIdx.x % kWarpSize;
        near[a] = j < size && within(i, j);
      }
#pragma unroll
      for (int a = 0; a < kAhead; ++a) {
        if (near[a]) visit(first + a * kWarpSize + threadIdx.x % kWarpSize);
      }
      __syncwarp();  // lanes that visit something must not go on alone
    }
  }
  __device__ bool within(int64_t i, int64_t j) const { return distance[i * size + j] <= bound; }
  __device__ int64_t implicit_self(int64_t) const { return 0; }
};

__device__ __forceinline__ int64_t warp_row() {
  return static_cast<int64_t>(blockIdx.x) * kCsrWarps + threadIdx.x / kWarpSize;
}

// A graph that will be refused has no cores, so the kernels after this one do not look at it.
template <class Graph>
__global__ void find_cores(Graph graph, int64_t min_samples, bool* core, int32_t* parent, int64_t* label) {
  const int64_t i = warp_row();
  if (i >= graph.rows()) return;
  const bool usable = graph.usable();
  int64_t count = 0;
  if (usable) graph.neighbours(i, [&](int64_t) { ++count; });
  count = warp_sum(count);
  if (threadIdx.x % kWarpSize != 0) return;
  core[i] = usable && count + graph.implicit_self(i) >= min_samples;
  parent[i] = static_cast<int32_t>(i);
  label[i] = kNoCluster;
}

// Joins neighbouring cores; sets `asymmetric` where one lists the other but not the other way round.
template <class Graph>
__global__ void join_cores(Graph graph, const bool* core, int32_t* parent, int* asymmetric) {
  const int64_t i = warp_row();
  if (i >= graph.rows() || !core[i]) return;
  graph.neighbours(i, [&](int64_t j) {
    if (!core[j] || j == i) return;
    if (!graph.within(j, i)) {
      store_relaxed(asymmetric, 1);
    } else if (j < i) {  // the other half of the pairs is the same
      unite(parent, static_cast<int32_t>(i), static_cast<int32_t>(j));
    }
  });
}

// root[i] = 1 if i is the smallest core of a component; 0 for i = rows.
__global__ void mark_roots(const bool* core, const int32_t* parent, int64_t rows, int64_t* root) {
  const int64_t i = thread_index();
  if (i <= rows) root[i] = i < rows && core[i] && parent[i] == i;
}

// `number`: the roots below i, which for a root is the number of its cluster.
template <class Graph>
__global__ void label_points(Graph graph, const bool* core, int32_t* parent, const int64_t* number, int64_t* label) {
  const int64_t i = warp_row();
  if (i >= graph.rows() || !core[i]) return;
  const int64_t cluster = number[find_root(parent, static_cast<int32_t>(i))];
  if (threadIdx.x % kWarpSize == 0) store_relaxed(label + i, cluster);
  graph.neighbours(i, [&](int64_t j) {
    if (!core[j]) atomicMin(reinterpret_cast<long long*>(label + j), static_cast<long long>(cluster));
  });
}

__global__ void name_noise(int64_t rows, int64_t* label) {
  const int64_t i = thread_index();
  if (i < rows && label[i] == kNoCluster) label[i] = -1;
}

// What the host waits for: all 0xff where nothing is wrong. `Check`: what a graph is refused for.
template <class Check>
struct Verdict {
  Check check;
  int asymmetric;  // 1: yes, and the labels are those of no graph

  bool symmetric() const { return asymmetric != 1; }
};

template <class Graph>
void cluster(const Graph& graph, int64_t rows, int64_t min_samples, bool* core, int64_t* label, int* asymmetric,
             const Tensor& like, cudaStream_t stream) {
  const unsigned warps = blocks_for(rows, kCsrWarps);
  const Scratch<int32_t> parent(rows, like);
  const Scratch<int64_t> number(rows + 1, like);
  LAUNCH(find_cores<Graph>, warps, kCsrThreads, 0, stream, graph, min_samples, core, parent.data(), label);
  LAUNCH(join_cores<Graph>, warps, kCsrThreads, 0, stream, graph, core, parent.data(), asymmetric);
  LAUNCH(mark_roots, blocks_for(rows + 1), kCsrThreads, 0, stream, core, parent.data(), rows, number.data());
  exclusive_sum(number.data(), number.data(), rows + 1, like, stream);
  LAUNCH(label_points<Graph>, warps, kCsrThreads, 0, stream, graph, core, parent.data(), number.data(), label);
  LAUNCH(name_noise, blocks_for(rows), kCsrThreads, 0, stream, rows, label);
}

using Result = std::tuple<Tensor, Tensor>;

Result empty_result(const Tensor& like, int64_t rows) {
  return {device_empty(like, {rows}, ScalarType::Long), device_empty(like, {rows}, ScalarType::Bool)};
}

// The CPU operator `name` on copies of the graph's tensors.
template <size_t kTensors>
Result on_cpu(const char* name, const Tensor (&graph)[kTensors], double eps, int64_t min_samples) {
  using torch::stable::detail::from;
  std::array<StableIValue, kTensors + 2> stack;
  for (size_t t = 0; t < kTensors; ++t) {
    stack[t] = from(torch::stable::to(graph[t], torch::stable::Device(torch::headeronly::DeviceType::CPU)));
  }
  stack[kTensors] = from(eps);
  stack[kTensors + 1] = from(min_samples);
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher(name, "", stack.data(), TORCH_ABI_VERSION));
  const auto labels = torch::stable::detail::to<Tensor>(stack[0]), core = torch::stable::detail::to<Tensor>(stack[1]);
  Result result = empty_result(graph[0], labels.size(0));
  torch::stable::copy_(std::get<0>(result), labels);
  torch::stable::copy_(std::get<1>(result), core);
  return result;
}

template <class Index, class Value>
Result dbscan_csr(const Tensor& indptr, const Tensor& indices, const Tensor& values, double eps, int64_t min_samples) {
  const cudaStream_t stream = current_stream(values);
  const auto csr = device_csr<Index, Value>(indptr, indices, values);
  const int64_t nnz = indices.size(0);
  Result result = empty_result(values, csr.rows);
  if (csr.rows == 0) {
    check_csr(csr, csr.rows, nnz, values, stream);
    return result;
  }
  const Scratch<Verdict<csr::Findings>> verdict(1, values);
  verdict.fill(0xff, stream);
  look_at_rows(csr.indptr, csr.rows, nnz, graph_entries(csr, csr.rows), &verdict.data()->check, stream);
  const SparseGraph<Index, Value> graph{csr, static_cast<Value>(eps), nnz, &verdict.data()->check};
  cluster(graph, csr.rows, min_samples, std::get<1>(result).mutable_data_ptr<bool>(),
          std::get<0>(result).mutable_data_ptr<int64_t>(), &verdict.data()->asymmetric, values, stream);
  const auto found = read_back(verdict.data(), stream);
  judge_csr(found.check, csr, csr.rows, nnz, stream);
  if (found.symmetric()) return result;
  return on_cpu("ise_fast::dbscan", {indptr, indices, values}, eps, min_samples);
}

Result dbscan(const Tensor& indptr, const Tensor& indices, const Tensor& values, double eps, int64_t min_samples) {
  check_dbscan(indptr, indices, values, eps, min_samples);
  const DeviceScope device(values);
  const Tensor offsets = device_contiguous(indptr), cols = device_contiguous(indices),
               distances = device_contiguous(values);
  const bool narrow = cols.scalar_type() == ScalarType::Int, single = distances.scalar_type() == ScalarType::Float;
  const auto run = narrow   ? single ? dbscan_csr<int32_t, float> : dbscan_csr<int32_t, double>
                   : single ? dbscan_csr<int64_t, float>
                            : dbscan_csr<int64_t, double>;
  return run(offsets, cols, distances, eps, min_samples);
}

template <class Value>
__global__ void check_distances(const Value* distance, int64_t n, Value largest, unsigned long long* first_bad) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t p = thread_index(); p < n; p += stride) {
    if (!(distance[p] >= 0 && distance[p] <= largest)) atomicMin(first_bad, static_cast<unsigned long long>(p));
  }
}

template <class Value>
Result dbscan_matrix(const Tensor& distance, double eps, int64_t min_samples) {
  const cudaStream_t stream = current_stream(distance);
  const int64_t rows = distance.size(0);
  const auto* value = distance.const_data_ptr<Value>();
  Result result = empty_result(distance, rows);
  if (rows == 0) return result;
  const Scratch<Verdict<unsigned long long>> verdict(1, distance);
  verdict.fill(0xff, stream);
  LAUNCH(check_distances<Value>, std::min<unsigned>(blocks_for(rows * rows), 16 * multiprocessors()), kCsrThreads, 0,
         stream, value, rows * rows, std::numeric_limits<Value>::max(), &verdict.data()->check);
  const DenseGraph<Value> graph{value, rows, static_cast<Value>(eps)};
  cluster(graph, rows, min_samples, std::get<1>(result).mutable_data_ptr<bool>(),
          std::get<0>(result).mutable_data_ptr<int64_t>(), &verdict.data()->asymmetric, distance, stream);
  const auto found = read_back(verdict.data(), stream);
  if (const auto bad = found.check; bad != kNowhere) {
    check_dense_distance(read_back(value + bad, stream), static_cast<int64_t>(bad), rows);
  }
  if (found.symmetric()) return result;
  return on_cpu("ise_fast::dbscan_dense", {distance}, eps, min_samples);
}

Result dbscan_dense(const Tensor& graph, double eps, int64_t min_samples) {
  check_dbscan_dense(graph, eps, min_samples);
  const DeviceScope device(graph);
  const Tensor d = device_contiguous(graph);
  const auto run = d.scalar_type() == ScalarType::Float ? dbscan_matrix<float> : dbscan_matrix<double>;
  return run(d, eps, min_samples);
}

}  // namespace

ISE_FAST_CUDA_OPERATORS(m) {
  m.impl("dbscan", TORCH_BOX(&dbscan));
  m.impl("dbscan_dense", TORCH_BOX(&dbscan_dense));
}

}  // namespace ise_fast
