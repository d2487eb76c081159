// Each building block of csrc/cuda by itself, as an operator for test_blocks.py.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <torch/csrc/stable/ops.h>

#include "../../csrc/cuda/cub.h"
#include "../../csrc/cuda/exact_distance.cuh"
#include "../../csrc/cuda/gemm.h"
#include "../../csrc/cuda/hash.cuh"
#include "../../csrc/cuda/reduce.cuh"
#include "../../csrc/cuda/slices.cuh"
#include "../../csrc/cuda/topk.cuh"

namespace ise_fast {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int kThreads = 64;
constexpr int kKeys = 3;  // that a thread offers at once

__global__ void smallest_kernel(const int64_t* keys, int64_t n, int k, int64_t* out) {
  using Smallest = BlockSmallest<kThreads, 512>;
  __shared__ Smallest::Storage storage;
  Smallest smallest(storage, k);
  for (int64_t start = 0; start < n; start += kThreads * kKeys) {
    uint64_t mine[kKeys];
    for (int i = 0; i < kKeys; ++i) {
      const int64_t j = start + i * kThreads + threadIdx.x;
      mine[i] = j < n ? static_cast<uint64_t>(keys[j]) : kWorstKey;
    }
    smallest.offer(mine);
  }
  smallest.finish();
  for (int r = threadIdx.x; r < k; r += kThreads) out[r] = static_cast<int64_t>(smallest.result()[r]);
}

Tensor smallest(const Tensor& keys, int64_t k) {
  Tensor out = torch::stable::new_empty(keys, {k});
  LAUNCH(smallest_kernel, 1, kThreads, 0, current_stream(keys), keys.const_data_ptr<int64_t>(), keys.numel(), k,
         out.mutable_data_ptr<int64_t>());
  return out;
}

// Columns of `out`: block sum, block minimum, sum of the own warp, sum over lower lanes (of integers).
__global__ void reduce_kernel(const double* values, double* out) {
  __shared__ double scratch[kThreads / kWarpSize];
  const double value = values[threadIdx.x];
  double* row = out + threadIdx.x * 4;
  row[0] = block_sum(value, scratch);
  row[1] = block_reduce(value, Min{}, 1e300, scratch);
  row[2] = warp_sum(value);
  row[3] = warp_exclusive_sum(static_cast<int>(threadIdx.x));
}

Tensor reduce(const Tensor& values) {
  Tensor out = torch::stable::new_empty(values, {kThreads, 4});
  LAUNCH(reduce_kernel, 1, kThreads, 0, current_stream(values), values.const_data_ptr<double>(),
         out.mutable_data_ptr<double>());
  return out;
}

__global__ void hash_kernel(const int32_t* keys, int n, int slots, int32_t* inserted, int32_t* found) {
  DYNAMIC_SHARED(uint32_t, table_keys);
  for (int i = threadIdx.x; i < slots; i += kThreads) table_keys[i] = HashTable::kEmpty;
  __syncthreads();
  HashTable table(table_keys, slots);
  for (int i = threadIdx.x; i < n; i += kThreads) inserted[i] = table.insert(keys[i]);
  __syncthreads();
  for (int i = threadIdx.x; i < n; i += kThreads) found[i] = table.find(keys[i]);
}

std::tuple<Tensor, Tensor> hash(const Tensor& keys, int64_t slots) {
  Tensor inserted = torch::stable::empty_like(keys), found = torch::stable::empty_like(keys);
  LAUNCH(hash_kernel, 1, kThreads, slots * sizeof(uint32_t), current_stream(keys), keys.const_data_ptr<int32_t>(),
         keys.numel(), slots, inserted.mutable_data_ptr<int32_t>(), found.mutable_data_ptr<int32_t>());
  return {inserted, found};
}

std::tuple<Tensor, Tensor, Tensor> cub(const Tensor& keys, const Tensor& values, int64_t first_bit, int64_t last_bit) {
  Tensor sorted = torch::stable::empty_like(keys), carried = torch::stable::empty_like(values),
         sums = torch::stable::empty_like(keys);
  const auto* key = reinterpret_cast<const uint64_t*>(keys.const_data_ptr<int64_t>());
  auto* out = reinterpret_cast<uint64_t*>(sorted.mutable_data_ptr<int64_t>());
  const cudaStream_t stream = current_stream(keys);
  sort_pairs(key, out, reinterpret_cast<const uint32_t*>(values.const_data_ptr<int32_t>()),
             reinterpret_cast<uint32_t*>(carried.mutable_data_ptr<int32_t>()), keys.numel(), keys, stream,
             static_cast<int>(first_bit), static_cast<int>(last_bit));
  exclusive_sum(keys.const_data_ptr<int64_t>(), sums.mutable_data_ptr<int64_t>(), keys.numel(), keys, stream);
  return {sorted, carried, sums};
}

Tensor product(const Tensor& a, const Tensor& b) {
  Tensor out = torch::stable::new_empty(a, {a.size(0), b.size(0)}, ScalarType::Float);
  matmul(out, a, torch::stable::transpose(b, 0, 1));
  return out;
}

// How far each score is from the exact one, and how far it may be; a warp a pair.
__global__ void filter_errors_kernel(const float* product, FilterRows<float> rows, FilterUnits units, double* error,
                                     double* margin) {
  const int64_t i = blockIdx.x, j = blockIdx.y;
  const double exact = exact_score(rows, units, i, exact_distance(rows, rows, units.metric, i, j));
  if (threadIdx.x > 0) return;
  error[i * rows.n + j] = fabs(approximate_score(rows, rows, product[i * rows.n + j], i, j) - exact);
  margin[i * rows.n + j] = score_margin(rows, rows, units, i);
}

std::tuple<Tensor, Tensor> filter_errors(const Tensor& x) {
  FilterSide side, none;
  const cudaStream_t stream = current_stream(x);
  const FilterUnits units = prepare_filter<float>(side, none, x, nullptr, Metric::kSquaredEuclidean, stream);
  const int64_t n = x.size(0);
  Tensor error = torch::stable::new_empty(x, {n, n}, ScalarType::Double);
  Tensor margin = torch::stable::new_empty(x, {n, n}, ScalarType::Double);
  const Tensor all = torch::stable::new_empty(x, {n, n}),
               product = multiply_tile(all, side.rounded, side.rounded, 0, n);
  LAUNCH(filter_errors_kernel, dim3(static_cast<unsigned>(n), static_cast<unsigned>(n)), kWarpSize, 0, stream,
         product.const_data_ptr<float>(), side.rows<float>(), units, error.mutable_data_ptr<double>(),
         margin.mutable_data_ptr<double>());
  return {error, margin};
}

// The squared distance of each of the first rows to each of the others by slices, and its error; a thread a pair.
__global__ void nearly_squared_kernel(SliceSums sums, SliceTerms queries, SliceTerms gallery, int64_t d, double* value,
                                      double* error) {
  const int64_t query[1] = {blockIdx.x}, g = blockIdx.y;
  double dot[1];
  slice_dots(sums, query, g, dot);
  const NearlySquared squared(SlicedRow(queries, query[0]), SlicedRow(gallery, g), dot[0], d);
  value[query[0] * gridDim.y + g] = squared.value;
  error[query[0] * gridDim.y + g] = squared.error;
}

std::tuple<Tensor, Tensor, Tensor> nearly_squared(const Tensor& x, int64_t queries) {
  const cudaStream_t stream = current_stream(x);
  const int64_t m = queries, n = x.size(0) - m, d = x.size(1);
  const auto* rows = x.const_data_ptr<float>();
  const SlicedRows first(x, m, d, false), others(x, n, d, true);
  first.take(rows, m, d, stream);
  others.take(rows + m * d, n, d, stream);
  const Tensor planes = device_empty(x, {count_slice_sums(first.whole), m, whole_sectors(n)});
  multiply_slices(planes, first, others, m, n);
  Tensor value = device_empty(x, {m, n}, ScalarType::Double), error = device_empty(x, {m, n}, ScalarType::Double);
  LAUNCH(nearly_squared_kernel, dim3(static_cast<unsigned>(m), static_cast<unsigned>(n)), 1, 0, stream,
         slice_sums(planes, first.whole), first.pointers(), others.pointers(), d, value.mutable_data_ptr<double>(),
         error.mutable_data_ptr<double>());
  return {value, error, planes};
}

void product_into(Tensor out, const Tensor& a, const Tensor& b) {
  matmul(out, a, b);
}

__global__ void round_kernel(const float* in, int n, float* as_half, float* as_bfloat16) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  as_half[i] = __half2float(__float2half_rn(in[i]));
  as_bfloat16[i] = __bfloat162float(__float2bfloat16_rn(in[i]));
}

std::tuple<Tensor, Tensor> round_trip(const Tensor& values) {
  Tensor as_half = torch::stable::empty_like(values), as_bfloat16 = torch::stable::empty_like(values);
  const int n = static_cast<int>(values.numel());
  LAUNCH(round_kernel, (n + kThreads - 1) / kThreads, kThreads, 0, current_stream(values),
         values.const_data_ptr<float>(), n, as_half.mutable_data_ptr<float>(), as_bfloat16.mutable_data_ptr<float>());
  return {as_half, as_bfloat16};
}

// One row a lane: ballot, match, a masked sum and the shuffles of every kind.
__global__ void collectives_kernel(const int32_t* in, int32_t* out) {
  const int lane = threadIdx.x, value = in[lane];
  int32_t* row = out + lane * 8;
  row[0] = static_cast<int>(__ballot_sync(kWholeWarp, value % 2));
  row[1] = static_cast<int>(__match_any_sync(kWholeWarp, value));
  row[2] = lane < 10 ? __reduce_add_sync(0x3ffu, value) : __reduce_min_sync(~0x3ffu, value);
  row[3] = __shfl_sync(kWholeWarp, value, 3, 8);
  row[4] = __shfl_up_sync(kWholeWarp, value, 2, 16);
  row[5] = __shfl_down_sync(kWholeWarp, value, 5);
  row[6] = __shfl_xor_sync(kWholeWarp, value, 7);
  row[7] = __all_sync(kWholeWarp, value < 5) * 2 + __any_sync(kWholeWarp, value < 5);
}

Tensor collectives(const Tensor& values) {
  Tensor out = torch::stable::new_empty(values, {kWarpSize, 8});
  LAUNCH(collectives_kernel, 1, kWarpSize, 0, current_stream(values), values.const_data_ptr<int32_t>(),
         out.mutable_data_ptr<int32_t>());
  return out;
}

// Lock-free union: the larger root is hung below the smaller one.
__global__ void unite_kernel(const int32_t* edges, int n, int32_t* parent) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  int a = edges[2 * i], b = edges[2 * i + 1];
  while (true) {
    for (int up = load_relaxed(parent + a); up != a; up = load_relaxed(parent + a)) a = up;
    for (int up = load_relaxed(parent + b); up != b; up = load_relaxed(parent + b)) b = up;
    if (a == b) return;
    const int low = min(a, b), high = max(a, b);
    if (atomicCAS(parent + high, high, low) == high) return;
  }
}

void unite(const Tensor& edges, Tensor& parent) {
  const int n = static_cast<int>(edges.size(0));
  LAUNCH(unite_kernel, (n + kThreads - 1) / kThreads, kThreads, 0, current_stream(edges),
         edges.const_data_ptr<int32_t>(), n, parent.mutable_data_ptr<int32_t>());
}

}  // namespace

#ifdef ISE_FAST_PTX
#define BLOCKS ise_fast_ptx_blocks
#else
#define BLOCKS ise_fast_blocks
#endif

STABLE_TORCH_LIBRARY(BLOCKS, m) {
  m.def("smallest(Tensor keys, int k) -> Tensor");
  m.def("reduce(Tensor values) -> Tensor");
  m.def("hash(Tensor keys, int slots) -> (Tensor, Tensor)");
  m.def("cub(Tensor keys, Tensor values, int first_bit, int last_bit) -> (Tensor, Tensor, Tensor)");
  m.def("product(Tensor a, Tensor b) -> Tensor");
  m.def("filter_errors(Tensor x) -> (Tensor, Tensor)");
  m.def("product_into(Tensor(a!) out, Tensor a, Tensor b) -> ()");
  m.def("nearly_squared(Tensor x, int queries) -> (Tensor, Tensor, Tensor)");
  m.def("round_trip(Tensor values) -> (Tensor, Tensor)");
  m.def("collectives(Tensor values) -> Tensor");
  m.def("unite(Tensor edges, Tensor(a!) parent) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(BLOCKS, CPU, m) {
  m.impl("smallest", TORCH_BOX(&smallest));
  m.impl("reduce", TORCH_BOX(&reduce));
  m.impl("hash", TORCH_BOX(&hash));
  m.impl("cub", TORCH_BOX(&cub));
  m.impl("product", TORCH_BOX(&product));
  m.impl("filter_errors", TORCH_BOX(&filter_errors));
  m.impl("product_into", TORCH_BOX(&product_into));
  m.impl("nearly_squared", TORCH_BOX(&nearly_squared));
  m.impl("round_trip", TORCH_BOX(&round_trip));
  m.impl("collectives", TORCH_BOX(&collectives));
  m.impl("unite", TORCH_BOX(&unite));
}

}  // namespace ise_fast
