// The k nearest rows, ordered by (distance, index), exact: candidates from a float16 product by the library, float64
// distances of the candidates, a certificate per row, and the rows that fail it compared with everything.
#include <optional>
#include <string>
#include <tuple>

#include "pair_filter.cuh"
#include "topk.cuh"

namespace ise_fast {
namespace {

constexpr int kOffered = 4;               // keys that a thread offers at once
constexpr int64_t kSmallCapacity = 2048;  // of the selection buffers, in keys
constexpr int64_t kLargeCapacity = 4096;
constexpr int64_t kMostCandidates = kLargeCapacity - kFilterThreads * kOffered;

// The `kept` smallest approximate scores of every query of a tile, a block each.
template <int kCapacity>
__global__ void select_candidates(const float* product, FilterRows<float> query, FilterRows<float> base, uint64_t* keys,
                                  int64_t first, int kept) {
  using Smallest = BlockSmallest<kFilterThreads, kCapacity>;
  __shared__ typename Smallest::Storage storage;
  Smallest smallest(storage, kept);
  const float* row = product + blockIdx.x * base.n;
  const int64_t i = first + blockIdx.x;
  for (int64_t start = 0; start < base.n; start += kFilterThreads * kOffered) {
    uint64_t offered[kOffered];
    for (int c = 0; c < kOffered; ++c) {
      const int64_t j = start + c * kFilterThreads + threadIdx.x;
      offered[c] = j < base.n ? ascending_key(approximate_score(query, base, row[j], i, j), static_cast<uint32_t>(j))
                              : kWorstKey;
    }
    smallest.offer(offered);
  }
  smallest.finish();
  for (int c = threadIdx.x; c < kept; c += kFilterThreads) keys[blockIdx.x * kept + c] = smallest.result()[c];
}

// Exact distances of the candidates, their order, and whether any other row could belong to the answer; a block a
// query. Rows without certificate are listed in `failed`, in any order.
__global__ void settle(const uint64_t* keys, FilterRows<float> query, FilterRows<float> base, FilterUnits units,
                       float* distances, int64_t* indices, int64_t* failed, unsigned long long* failures, int64_t first,
                       int kept, int64_t k) {
  DYNAMIC_SHARED(double, exact);  // [kept]
  const uint64_t* row = keys + blockIdx.x * kept;
  const int64_t i = first + blockIdx.x;
  const int lane = threadIdx.x % kWarpSize;
  for (int c = threadIdx.x / kWarpSize; c < kept; c += kFilterWarps) {
    const double distance = exact_distance(query, base, units.metric, i, key_index(row[c]));
    if (lane == 0) exact[c] = distance;
  }
  __syncthreads();
  for (int c = threadIdx.x; c < kept; c += kFilterThreads) {
    const double distance = exact[c];
    const uint32_t index = key_index(row[c]);
    int64_t rank = 0;
    for (int o = 0; o < kept; ++o) {
      rank += exact[o] < distance || (exact[o] == distance && key_index(row[o]) < index);
    }
    if (rank >= k) continue;
    distances[i * k + rank] = returned_distance(distance, units.metric);
    indices[i * k + rank] = index;
    if (rank != k - 1 || kept == base.n) continue;
    const double unseen = static_cast<double>(ascending_value(row[kept - 1])) - score_margin(query, base, units, i);
    if (!(exact_score(query, units, i, distance) < unseen)) failed[atomicAdd(failures, 1ull)] = i;
  }
}

// The failed queries against all base rows: float64 distances to `scratch`, then k times the smallest (distance, index)
// above the last. Each block takes every gridDim.x-th of them.
__global__ void redo(FilterRows<float> query, FilterRows<float> base, FilterUnits units, double* scratch,
                     float* distances, int64_t* indices, const int64_t* failed, const unsigned long long* failures,
                     int64_t k) {
  __shared__ double reduce_distance[kFilterWarps];
  __shared__ int64_t reduce_index[kFilterWarps];
  double* row = scratch + blockIdx.x * base.n;
  const int lane = threadIdx.x % kWarpSize;
  const auto count = static_cast<int64_t>(*failures);
  for (int64_t f = blockIdx.x; f < count; f += gridDim.x) {
    const int64_t i = failed[f];
    for (int64_t j = threadIdx.x / kWarpSize; j < base.n; j += kFilterWarps) {
      const double distance = exact_distance(query, base, units.metric, i, j);
      if (lane == 0) row[j] = distance;
    }
    __syncthreads();
    double last = -1;
    int64_t last_index = -1;
    for (int64_t r = 0; r < k; ++r) {
      double best = std::numeric_limits<double>::infinity();
      int64_t best_index = base.n;
      for (int64_t j = threadIdx.x; j < base.n; j += kFilterThreads) {  // ascending: the first of equals stays
        const double distance = row[j];
        if ((distance > last || (distance == last && j > last_index)) && distance < best) {
          best = distance;
          best_index = j;
        }
      }
      last = block_reduce(best, Min{}, std::numeric_limits<double>::infinity(), reduce_distance);
      last_index = block_reduce(best == last ? best_index : base.n, Min{}, base.n, reduce_index);
      if (threadIdx.x == 0) {
        distances[i * k + r] = returned_distance(last, units.metric);
        indices[i * k + r] = last_index;
      }
    }
    __syncthreads();  // nobody may overwrite `row` before every thread has searched it
  }
}

// (distances [M, k] f32, indices [M, k] i64, number of rows redone). `block`: rows of a tile, 0 chooses (for tests).
std::tuple<Tensor, Tensor, Tensor> knn(const Tensor& x, int64_t k, const std::optional<Tensor>& y,
                                       std::string metric_name, int64_t block, int64_t /*width*/) {
  check_block(block);
  const Metric metric = check_knn(x, k, y ? &*y : nullptr, metric_name);
  const int64_t n = x.size(0), queries = y ? y->size(0) : n;
  // Some more than k, so that rounding rarely leaves a doubt about the k-th: measured, 64 settle k = 30 (d = 2048).
  const int64_t kept = std::min(n, k + std::max<int64_t>(34, k / 8));
  check(kept <= kMostCandidates, "k: expected at most ", kMostCandidates * 8 / 9 - 1, " on a GPU, got ", k);
  const DeviceScope device(x);
  const cudaStream_t stream = current_stream(x);

  FilterSide base_side, query_side;
  const FilterUnits units = prepare_filter<float>(base_side, query_side, x, y ? &*y : nullptr, metric, stream);
  const FilterSide& from = y ? query_side : base_side;
  const FilterRows<float> base = base_side.rows<float>(), query = from.rows<float>();
  Tensor distances = torch::stable::new_empty(x, {queries, k});
  Tensor indices = torch::stable::new_empty(x, {queries, k}, ScalarType::Long);
  Tensor redone = torch::stable::new_zeros(x, {}, ScalarType::Long);
  if (queries == 0) return {distances, indices, redone};
  const Tensor failed = torch::stable::new_empty(x, {queries}, ScalarType::Long);
  auto* failures = reinterpret_cast<unsigned long long*>(redone.mutable_data_ptr<int64_t>());

  const int64_t height = tile_rows(queries, n, block);
  {
    const Tensor buffer = torch::stable::new_empty(x, {height, n});
    const Tensor candidates = torch::stable::new_empty(x, {height, kept}, ScalarType::Long);
    auto* keys = reinterpret_cast<uint64_t*>(candidates.mutable_data_ptr<int64_t>());
    for (int64_t first = 0; first < queries; first += height) {
      const int64_t rows = std::min(height, queries - first);
      const Tensor product = multiply_tile(buffer, from.rounded, base_side.rounded, first, rows);
      const auto grid = static_cast<unsigned>(rows);
      if (kept + kFilterThreads * kOffered <= kSmallCapacity) {
        LAUNCH(select_candidates<kSmallCapacity>, grid, kFilterThreads, 0, stream, product.const_data_ptr<float>(),
               query, base, keys, first, kept);
      } else {
        LAUNCH(select_candidates<kLargeCapacity>, grid, kFilterThreads, 0, stream, product.const_data_ptr<float>(),
               query, base, keys, first, kept);
      }
      LAUNCH(settle, grid, kFilterThreads, kept * sizeof(double), stream, keys, query, base, units,
             distances.mutable_data_ptr<float>(), indices.mutable_data_ptr<int64_t>(),
             failed.mutable_data_ptr<int64_t>(), failures, first, kept, k);
    }
  }

  const int64_t blocks = std::clamp<int64_t>(free_bytes() / 4 / (8 * n), 1, 2 * multiprocessors());
  const Tensor scratch = torch::stable::new_empty(x, {std::min(blocks, queries), n}, ScalarType::Double);
  LAUNCH(redo, static_cast<unsigned>(scratch.size(0)), kFilterThreads, 0, stream, query, base, units,
         scratch.mutable_data_ptr<double>(), distances.mutable_data_ptr<float>(), indices.mutable_data_ptr<int64_t>(),
         failed.const_data_ptr<int64_t>(), failures, k);
  return {distances, indices, redone};
}

}  // namespace

ISE_FAST_CUDA_OPERATORS(m) {
  m.impl("knn", TORCH_BOX(&knn));
}

}  // namespace ise_fast
