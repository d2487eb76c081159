// The k nearest rows, ordered by (distance, index), exact: candidates from a float16 product by the library, float64
// distances of those that may belong to the answer, and a certificate per row. The rows that fail it, in crowds of
// near-duplicates, are searched again with many candidates; those that fail once more are compared with everything.
#include <optional>
#include <string>
#include <tuple>

#include "pair_filter.cuh"
#include "topk.cuh"

namespace ise_fast {
namespace {

constexpr int kOffered = 4;               // keys that a thread offers at once
constexpr int64_t kSurveyed = 4096;       // keys that give the first threshold
constexpr int64_t kSmallCapacity = 2048;  // of the selection buffers, in keys
constexpr int64_t kLargeCapacity = 4096;
constexpr int64_t kMostCandidates = kLargeCapacity - kFilterThreads * kOffered;

// Consecutive queries from `first`, or those that a list names there.
struct Queries {
  const int64_t* list;  // null: all
  int64_t first;

  __device__ int64_t operator[](int64_t r) const { return list ? list[first + r] : first + r; }
};

// Queries without certificate, in any order.
struct Failures {
  int64_t* list;
  unsigned long long* count;
};

// The `kept` smallest approximate scores of every query of a tile, a block each.
template <int kCapacity>
__global__ void select_candidates(const float* product, FilterRows<float> query, FilterRows<float> base, uint64_t* keys,
                                  Queries queries, int kept) {
  using Smallest = BlockSmallest<kFilterThreads, kCapacity>;
  __shared__ typename Smallest::Storage storage;
  Smallest smallest(storage, kept);
  const float* row = product + blockIdx.x * base.n;
  const float factor = query.terms[queries[blockIdx.x]].factor;
  const auto key_of = [&](int64_t j) {
    return ascending_key(base.terms[j].of(row[j], factor), static_cast<uint32_t>(j));
  };
  if (kept <= kFilterThreads) {
    const int64_t surveyed = base.n < kSurveyed ? base.n : kSurveyed;
    uint64_t least = kWorstKey;
    for (int64_t j = threadIdx.x; j < surveyed; j += kFilterThreads) least = Min{}(least, key_of(j));
    smallest.survey(least);
  }
  for (int64_t start = 0; start < base.n; start += kFilterThreads * kOffered) {
    uint64_t offered[kOffered];
    for (int c = 0; c < kOffered; ++c) {
      const int64_t j = start + c * kFilterThreads + threadIdx.x;
      offered[c] = j < base.n ? key_of(j) : kWorstKey;
    }
    smallest.offer(offered);
  }
  smallest.finish();
  uint64_t* out = keys + static_cast<int64_t>(blockIdx.x) * kept;
  for (int c = threadIdx.x; c < kept; c += kFilterThreads) out[c] = smallest.result()[c];
}

// Exact distances of the candidates, their order, and whether any other row could belong to the answer; a block a
// query.
//
// The k first candidates have exact scores of at most that of the k-th plus a margin, so no row of the answer has an
// approximate one above that plus another margin: as a rule this leaves few of the candidates, and no doubt.
__global__ void settle(const uint64_t* keys, FilterRows<float> query, FilterRows<float> base, FilterUnits units,
                       float* distances, int64_t* indices, Failures failures, Queries queries, int kept, int64_t k) {
  DYNAMIC_SHARED(double, exact);  // [kept]
  const uint64_t* row = keys + static_cast<int64_t>(blockIdx.x) * kept;
  const int64_t i = queries[blockIdx.x];
  const double margin = score_margin(query, base, units, i);
  const double limit = static_cast<double>(ascending_value(row[k - 1])) + 2 * margin;
  int count = static_cast<int>(k), above = kept;
  while (count < above) {  // they ascend
    const int middle = (count + above) / 2;
    if (static_cast<double>(ascending_value(row[middle])) <= limit) {
      count = middle + 1;
    } else {
      above = middle;
    }
  }
  const bool certain = count < kept || kept == base.n;

  const int lane = threadIdx.x % kWarpSize;
  for (int c = threadIdx.x / kWarpSize; c < count; c += kFilterWarps) {
    const double distance = exact_distance(query, base, units.metric, i, key_index(row[c]));
    if (lane == 0) exact[c] = distance;
  }
  __syncthreads();
  for (int c = threadIdx.x; c < count; c += kFilterThreads) {
    const double distance = exact[c];
    const uint32_t index = key_index(row[c]);
    int64_t rank = 0;
    for (int o = 0; o < count && rank < k; ++o) {
      rank += exact[o] < distance || (exact[o] == distance && key_index(row[o]) < index);
    }
    if (rank >= k) continue;
    distances[i * k + rank] = returned_distance(distance, units.metric);
    indices[i * k + rank] = index;
    if (rank != k - 1 || certain) continue;
    const double unseen = static_cast<double>(ascending_value(row[kept - 1])) - margin;
    if (!(exact_score(query, units, i, distance) < unseen)) failures.list[atomicAdd(failures.count, 1ull)] = i;
  }
}

// Rows of the float16 queries, one below the other; a warp a row.
__global__ void gather_rows(const __half* rows, const int64_t* list, __half* out, int64_t count, int64_t d) {
  const int64_t r = static_cast<int64_t>(blockIdx.x) * kFilterWarps + threadIdx.x / kWarpSize;
  if (r >= count) return;
  for (int64_t c = threadIdx.x % kWarpSize; c < d; c += kWarpSize) out[r * d + c] = rows[list[r] * d + c];
}

// Exact distances of `count` queries to all base rows; a warp a pair.
__global__ void compare_with_all(FilterRows<float> query, FilterRows<float> base, FilterUnits units, double* out,
                                 Queries queries, int64_t count) {
  const int64_t pair = static_cast<int64_t>(blockIdx.x) * kFilterWarps + threadIdx.x / kWarpSize;
  if (pair >= count * base.n) return;
  const double distance = exact_distance(query, base, units.metric, queries[pair / base.n], pair % base.n);
  if (threadIdx.x % kWarpSize == 0) out[pair] = distance;
}

// k times the smallest (distance, index) above the last; a block a query.
__global__ void take_smallest(const double* exact, int64_t n, Metric metric, float* distances, int64_t* indices,
                              Queries queries, int64_t k) {
  __shared__ double reduce_distance[kFilterWarps];
  __shared__ int64_t reduce_index[kFilterWarps];
  const double* row = exact + blockIdx.x * n;
  const int64_t i = queries[blockIdx.x];
  double last = -1;
  int64_t last_index = -1;
  for (int64_t r = 0; r < k; ++r) {
    double best = std::numeric_limits<double>::infinity();
    int64_t best_index = n;
    for (int64_t j = threadIdx.x; j < n; j += kFilterThreads) {  // ascending: the first of equals stays
      const double distance = row[j];
      if ((distance > last || (distance == last && j > last_index)) && distance < best) {
        best = distance;
        best_index = j;
      }
    }
    last = block_reduce(best, Min{}, std::numeric_limits<double>::infinity(), reduce_distance);
    last_index = block_reduce(best == last ? best_index : n, Min{}, n, reduce_index);
    if (threadIdx.x == 0) {
      distances[i * k + r] = returned_distance(last, metric);
      indices[i * k + r] = last_index;
    }
  }
}

// One search: both sides prepared, and where the answers go.
struct Search {
  const FilterSide &base_side, &query_side;
  FilterUnits units;
  int64_t k, block;
  cudaStream_t stream;
  float* distances;
  int64_t* indices;

  FilterRows<float> base() const { return base_side.rows<float>(); }
  FilterRows<float> query() const { return query_side.rows<float>(); }

  // The `count` queries of `list` (null: all), whose float16 rows are `rounded`, by `kept` candidates each.
  void run(const int64_t* list, int64_t count, const Tensor& rounded, int kept, Failures failures) const {
    const int64_t n = base().n;
    const auto [height, buffer] = new_tile(base_side.original, tile_rows(count, n, block), n);
    const Tensor candidates = device_empty(base_side.original, {height, kept}, ScalarType::Long);
    auto* keys = reinterpret_cast<uint64_t*>(candidates.mutable_data_ptr<int64_t>());
    for (int64_t first = 0; first < count; first += height) {
      const int64_t rows = std::min(height, count - first);
      const Tensor product = multiply_tile(buffer, rounded, base_side.rounded, first, rows);
      const auto grid = static_cast<unsigned>(rows);
      const Queries queries{list, first};
      if (kept + kFilterThreads * kOffered <= kSmallCapacity) {
        LAUNCH(select_candidates<kSmallCapacity>, grid, kFilterThreads, 0, stream, product.const_data_ptr<float>(),
               query(), base(), keys, queries, kept);
      } else {
        LAUNCH(select_candidates<kLargeCapacity>, grid, kFilterThreads, 0, stream, product.const_data_ptr<float>(),
               query(), base(), keys, queries, kept);
      }
      LAUNCH(settle, grid, kFilterThreads, kept * sizeof(double), stream, keys, query(), base(), units, distances,
             indices, failures, queries, kept, k);
    }
  }

  // The same by their float16 rows in one piece.
  void run_gathered(const int64_t* list, int64_t count, int kept, Failures failures) const {
    const int64_t d = base().d;
    Tensor gathered = device_empty(query_side.rounded, {count, d});
    LAUNCH(gather_rows, warps_grid(count), kFilterThreads, 0, stream,
           static_cast<const __half*>(query_side.rounded.const_data_ptr()), list,
           static_cast<__half*>(gathered.mutable_data_ptr()), count, d);
    run(list, count, gathered, kept, failures);
  }

  // The same without candidates.
  void run_exactly(const int64_t* list, int64_t count) const {
    const int64_t n = base().n, fit = std::clamp<int64_t>(device_bytes() / 64 / (8 * n), 1, count);
    halve_on_failure(fit, 1, [&](int64_t rows) {
      const Tensor scratch = device_empty(base_side.original, {rows, n}, ScalarType::Double);
      auto* exact = scratch.mutable_data_ptr<double>();
      for (int64_t first = 0; first < count; first += rows) {
        const int64_t here = std::min(rows, count - first);
        const Queries queries{list, first};
        LAUNCH(compare_with_all, warps_grid(here * n), kFilterThreads, 0, stream, query(), base(), units, exact,
               queries, here);
        LAUNCH(take_smallest, static_cast<unsigned>(here), kFilterThreads, 0, stream, exact, n, units.metric, distances,
               indices, queries, k);
      }
    });
  }
};

// (distances [M, k] f32, indices [M, k] i64, number of rows that the first search left in doubt). `block`: rows of a
// tile, 0 chooses (for tests).
std::tuple<Tensor, Tensor, Tensor> knn(const Tensor& x, int64_t k, const std::optional<Tensor>& y,
                                       std::string metric_name, int64_t block, int64_t width) {
  check_block(block);
  check_width(width);
  const Metric metric = check_knn(x, k, y ? &*y : nullptr, metric_name);
  const int64_t n = x.size(0), queries = y ? y->size(0) : n;
  // Some more than k, so that rounding rarely leaves a doubt about the k-th: measured, 64 settle k = 30 (d = 2048).
  const int64_t kept = std::min(n, k + std::max<int64_t>(34, k / 8)), many = std::min(n, kMostCandidates);
  check(kept <= kMostCandidates, "k: expected at most ", kMostCandidates * 8 / 9 - 1, " on a GPU, got ", k);
  const DeviceScope device(x);
  const cudaStream_t stream = current_stream(x);

  FilterSide base_side, query_side;
  const FilterUnits units = prepare_filter<float>(base_side, query_side, x, y ? &*y : nullptr, metric, stream);
  const FilterSide& from = y ? query_side : base_side;
  Tensor distances = device_empty(x, {queries, k}), indices = device_empty(x, {queries, k}, ScalarType::Long);
  Tensor redone = device_zeros(x, {}, ScalarType::Long);
  if (queries == 0) return {distances, indices, redone};

  const auto failures_of = [](Tensor& list, Tensor& count) {
    return Failures{list.mutable_data_ptr<int64_t>(),
                    reinterpret_cast<unsigned long long*>(count.mutable_data_ptr<int64_t>())};
  };
  const Search search{base_side,
                      from,
                      units,
                      k,
                      block,
                      stream,
                      distances.mutable_data_ptr<float>(),
                      indices.mutable_data_ptr<int64_t>()};
  Tensor failed = device_empty(x, {queries}, ScalarType::Long);
  search.run(nullptr, queries, from.rounded, static_cast<int>(kept), failures_of(failed, redone));
  auto left = static_cast<int64_t>(read_back(failures_of(failed, redone).count, stream));
  if (left > 0 && many > kept) {
    Tensor again = device_empty(x, {left}, ScalarType::Long), again_count = device_zeros(x, {}, ScalarType::Long);
    search.run_gathered(failed.const_data_ptr<int64_t>(), left, static_cast<int>(many),
                        failures_of(again, again_count));
    left = static_cast<int64_t>(read_back(failures_of(again, again_count).count, stream));
    failed = again;
  }
  if (left > 0) search.run_exactly(failed.const_data_ptr<int64_t>(), left);
  return {distances, indices, redone};
}

}  // namespace

ISE_FAST_CUDA_OPERATORS(m) {
  m.impl("knn", TORCH_BOX(&knn));
}

}  // namespace ise_fast
