// The k nearest rows, ordered by (distance, index), exact: candidates from a float16 product by the library, float64
// distances of those that may belong to the answer, and a certificate per row. Where it pays the product is of prefixes
// along principal axes. The rows that fail, in crowds of near-duplicates, are searched again with many candidates and
// all columns; those that fail once more are compared with everything.
#include <optional>
#include <string>
#include <tuple>

#include "prefix.cuh"
#include "prefix_cost.h"
#include "settle.cuh"
#include "topk.cuh"

namespace ise_fast {
namespace {

constexpr int kOffered = 4;               // keys that a thread offers at once
constexpr int64_t kSurveyed = 4096;       // keys that give the first threshold
constexpr int64_t kSmallCapacity = 2048;  // of the selection buffers, in keys
constexpr int64_t kLargeCapacity = 4096;
constexpr int64_t kMostCandidates = kLargeCapacity - kFilterThreads * kOffered;

// The `kept` smallest approximate scores of every query of a tile, a block each.
template <int kCapacity>
__global__ void select_candidates(const float* product, FilterRows<float> query, FilterRows<float> base, uint64_t* keys,
                                  Queries queries, int kept) {
  using Smallest = BlockSmallest<kFilterThreads, kCapacity>;
  __shared__ typename Smallest::Storage storage;
  Smallest smallest(storage, kept);
  const float* row = product + blockIdx.x * base.pitch;
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

// Rows of the float16 queries, one below the other; a warp a row.
__global__ void gather_rows(const __half* rows, const int64_t* list, __half* out, int64_t count, int64_t d) {
  const int64_t r = static_cast<int64_t>(blockIdx.x) * kFilterWarps + threadIdx.x / kWarpSize;
  if (r >= count) return;
  for (int64_t c = threadIdx.x % kWarpSize; c < d; c += kWarpSize) out[r * d + c] = rows[list[r] * d + c];
}

// Every n / count-th of n rows.
__global__ void list_evenly(int64_t* list, int64_t count, int64_t n) {
  const int64_t r = static_cast<int64_t>(blockIdx.x) * kFilterThreads + threadIdx.x;
  if (r < count) list[r] = r * n / count;
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

// What is multiplied for a search, and how far its scores can be from the exact ones.
struct Scores {
  FilterRows<float> query, base;
  Tensor query_rows, base_rows;      // new_rounded
  bool bounds;                       // from below (prefix.cuh), not to both sides
  Prefix query_prefix, base_prefix;  // own what `query` and `base` point to
};

unsigned long long* counter(Tensor& tensor) {
  return reinterpret_cast<unsigned long long*>(tensor.mutable_data_ptr<int64_t>());
}

// Where rows without certificate go, and how many there are.
struct Doubts {
  Tensor list, count;

  Doubts(const Tensor& like, int64_t most)
      : list(device_empty(like, {most}, ScalarType::Long)), count(device_zeros(like, {}, ScalarType::Long)) {}

  Failures failures() { return {list.mutable_data_ptr<int64_t>(), counter(count), nullptr}; }
};

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
  Scores all_columns() const { return {query(), base(), query_side.rounded, base_side.rounded, false, {}, {}}; }

  // The `count` queries of `list` (null: all), whose rows follow each other in scores.query_rows, by `kept` candidates
  // each.
  void run(const Scores& scores, const int64_t* list, int64_t count, int kept, Failures failures) const {
    const int64_t n = scores.base.n;
    const auto [height, buffer] = new_tile(base_side.original, tile_rows(count, n, block), n);
    const Tensor candidates = device_empty(base_side.original, {height, kept}, ScalarType::Long);
    auto* keys = reinterpret_cast<uint64_t*>(candidates.mutable_data_ptr<int64_t>());
    for (int64_t first = 0; first < count; first += height) {
      const int64_t rows = std::min(height, count - first);
      const Tensor product = multiply_tile(buffer, scores.query_rows, scores.base_rows, first, rows);
      const auto grid = static_cast<unsigned>(rows);
      const Queries queries{list, first};
      const auto* scored = product.const_data_ptr<float>();
      if (kept + kFilterThreads * kOffered <= kSmallCapacity) {
        LAUNCH(select_candidates<kSmallCapacity>, grid, kFilterThreads, 0, stream, scored, scores.query, scores.base,
               keys, queries, kept);
      } else {
        LAUNCH(select_candidates<kLargeCapacity>, grid, kFilterThreads, 0, stream, scored, scores.query, scores.base,
               keys, queries, kept);
      }
      if (scores.bounds) {
        LAUNCH(settle_bounds, grid, kFilterThreads, kept * sizeof(double), stream, keys, scores.query, scores.base,
               units, distances, indices, failures, queries, kept, k);
      } else {
        LAUNCH(settle, grid, kFilterThreads, kept * sizeof(double), stream, keys, scores.query, scores.base, units,
               distances, indices, failures, queries, kept, k);
      }
    }
  }

  // The same by their float16 rows in one piece.
  void run_gathered(Scores scores, const int64_t* list, int64_t count, int kept, Failures failures) const {
    const int64_t columns = scores.base_rows.size(1);
    Tensor gathered = device_empty(scores.query_rows, {count, columns});
    LAUNCH(gather_rows, warps_grid(count), kFilterThreads, 0, stream,
           static_cast<const __half*>(scores.query_rows.const_data_ptr()), list,
           static_cast<__half*>(gathered.mutable_data_ptr()), count, columns);
    scores.query_rows = gathered;
    run(scores, list, count, kept, failures);
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

  // Prefixes of `width` columns of both sides.
  Scores prefixes(int64_t width) const {
    Tensor rounded = base_side.rounded;
    const Axes axes = principal_axes(torch::stable::narrow(rounded, 0, 0, base().n), width, stream);
    const Prefix of_base = make_prefix<float>(base_side, axes, units, stream);
    const bool self = &query_side == &base_side;
    const Prefix of_query = self ? of_base : make_prefix<float>(query_side, axes, units, stream);
    return {of_query.of(query()), of_base.of(base()), of_query.rows, of_base.rows, true, of_query, of_base};
  }

  // Searches a few queries, evenly spaced, and predicts from them whether to search all. Their answers are overwritten.
  Pilot fly(const Scores& scores, int kept) const {
    const int64_t queries = query().n, count = std::min(queries, kPilotQueries);
    Tensor list = device_empty(base_side.original, {count}, ScalarType::Long);
    LAUNCH(list_evenly, static_cast<unsigned>((count + kFilterThreads - 1) / kFilterThreads), kFilterThreads, 0, stream,
           list.mutable_data_ptr<int64_t>(), count, queries);
    Doubts doubts(base_side.original, count);
    Tensor compared = device_zeros(base_side.original, {}, ScalarType::Long);
    Failures failures = doubts.failures();
    failures.compared = counter(compared);
    run_gathered(scores, list.const_data_ptr<int64_t>(), count, kept, failures);
    const auto part = [&](Tensor& number) {
      return static_cast<double>(read_back(counter(number), stream)) / static_cast<double>(count);
    };
    return {part(compared), part(doubts.count)};
  }

  // Prefixes that are predicted to pay, if there are any. `width`: see knn.
  std::optional<Scores> choose_prefixes(int64_t width, int kept) const {
    const int64_t d = base().d;
    if (width > 0) return prefixes(std::min(width, d));
    const SearchSize size{query().n, base().n, d, &query_side == &base_side};
    if (width == kNoPrefix || (width == 0 && !worth_a_pilot(size))) return std::nullopt;
    for (const int64_t columns : prefix_columns(d)) {
      const Scores scores = prefixes(columns - 1);
      const Pilot pilot = fly(scores, kept);
      if (predicted_cost(size, columns, pilot) < kWorthwhile * predicted_cost(size)) return scores;
      if (pilot.failed > kHopeless) break;
    }
    return std::nullopt;
  }
};

// (distances [M, k] f32, indices [M, k] i64, number of rows that the first search left in doubt). `block`: rows of a
// tile, 0 chooses; `width`: columns of a prefix, 0 chooses, -1 for none, -2 chooses even for a search so small that
// nothing can be gained. Both are for tests.
std::tuple<Tensor, Tensor, Tensor> knn(const Tensor& x, int64_t k, const std::optional<Tensor>& y,
                                       std::string metric_name, int64_t block, int64_t width) {
  check_block(block);
  check_width(width);
  const Metric metric = check_knn(x, k, y ? &*y : nullptr, metric_name);
  const int64_t n = x.size(0), queries = y ? y->size(0) : n;
  // Some more than k, so that rounding rarely leaves a doubt about the k-th: measured, 64 settle k = 30 (d = 2048). The
  // bounds of prefixes are wide: of a million rows a quarter of the columns of a network's features leaves 100 to 160.
  const int64_t kept = std::min(n, k + std::max<int64_t>(34, k / 8)), many = std::min(n, kMostCandidates);
  const int64_t kept_bounds = std::min(many, k + std::max<int64_t>(162, k / 2));
  check(kept <= kMostCandidates, "k: expected at most ", kMostCandidates * 8 / 9 - 1, " on a GPU, got ", k);
  const DeviceScope device(x);
  const cudaStream_t stream = current_stream(x);

  FilterSide base_side, query_side;
  const FilterUnits units = prepare_filter<float>(base_side, query_side, x, y ? &*y : nullptr, metric, stream);
  Tensor distances = device_empty(x, {queries, k}), indices = device_empty(x, {queries, k}, ScalarType::Long);
  Doubts doubts(x, queries);
  if (queries == 0) return {distances, indices, doubts.count};

  const Search search{base_side,
                      y ? query_side : base_side,
                      units,
                      k,
                      block,
                      stream,
                      distances.mutable_data_ptr<float>(),
                      indices.mutable_data_ptr<int64_t>()};
  {
    const std::optional<Scores> prefixes = search.choose_prefixes(width, static_cast<int>(kept_bounds));
    search.run(prefixes ? *prefixes : search.all_columns(), nullptr, queries,
               static_cast<int>(prefixes ? kept_bounds : kept), doubts.failures());
  }
  Tensor failed = doubts.list;
  auto left = static_cast<int64_t>(read_back(counter(doubts.count), stream));
  if (left > 0 && many > kept) {
    Doubts again(x, left);
    search.run_gathered(search.all_columns(), failed.const_data_ptr<int64_t>(), left, static_cast<int>(many),
                        again.failures());
    left = static_cast<int64_t>(read_back(counter(again.count), stream));
    failed = again.list;
  }
  if (left > 0) search.run_exactly(failed.const_data_ptr<int64_t>(), left);
  return {distances, indices, doubts.count};
}

}  // namespace

ISE_FAST_CUDA_OPERATORS(m) {
  m.impl("knn", TORCH_BOX(&knn));
}

}  // namespace ise_fast
