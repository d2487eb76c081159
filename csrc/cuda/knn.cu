// The k nearest rows, ordered by (distance, index), exact: candidates from a float16 product by the library, float64
// distances of those that may belong to the answer, and a certificate per row. Where it pays the product is of prefixes
// along principal axes, and among rows of one set half of the square. The rows that fail, in crowds of near-duplicates,
// are searched again with many candidates and all columns; those that fail once more are compared with everything.
#include <optional>
#include <string>
#include <tuple>

#include "candidate_lists.cuh"
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

// Where rows without certificate go, and how many there are.
struct Doubts {
  Tensor list, count;

  Doubts(const Tensor& like, int64_t most)
      : list(device_empty(like, {most}, ScalarType::Long)), count(device_zeros(like, {}, ScalarType::Long)) {}

  Failures failures() { return {list.mutable_data_ptr<int64_t>(), counter(count), nullptr}; }
};

// One search, and where the answers go.
struct Search {
  Sides<float> sides;
  int64_t k, block;
  int kept, kept_bounds;  // candidates by scores and by bounds
  float* distances;
  int64_t* indices;

  // The `count` queries of `list` (null: all), whose rows follow each other in scores.query_rows, by `candidates` each.
  void run(const Scores<float>& scores, const int64_t* list, int64_t count, int candidates, Failures failures) const {
    const Tensor& like = sides.base_side.original;
    const int64_t n = scores.base.n;
    const auto [height, buffer] = new_tile(like, tile_rows(count, n, block), n);
    const Tensor selected = device_empty(like, {height, candidates}, ScalarType::Long);
    auto* keys = reinterpret_cast<uint64_t*>(selected.mutable_data_ptr<int64_t>());
    for (int64_t first = 0; first < count; first += height) {
      const int64_t rows = std::min(height, count - first);
      const Tensor product = multiply_tile(buffer, scores.query_rows, scores.base_rows, first, rows);
      const auto grid = static_cast<unsigned>(rows);
      const Queries queries{list, first};
      const auto* scored = product.const_data_ptr<float>();
      if (candidates + kFilterThreads * kOffered <= kSmallCapacity) {
        LAUNCH(select_candidates<kSmallCapacity>, grid, kFilterThreads, 0, sides.stream, scored, scores.query,
               scores.base, keys, queries, candidates);
      } else {
        LAUNCH(select_candidates<kLargeCapacity>, grid, kFilterThreads, 0, sides.stream, scored, scores.query,
               scores.base, keys, queries, candidates);
      }
      settle_rows(scores, keys, candidates, queries, rows, candidates, failures);
    }
  }

  // Answers from ascending candidates of `rows` queries.
  void settle_rows(const Scores<float>& scores, const uint64_t* keys, int64_t pitch, Queries queries, int64_t rows,
                   int candidates, Failures failures) const {
    const auto grid = static_cast<unsigned>(rows);
    const size_t shared = candidates * sizeof(double);
    if (scores.bounds) {
      LAUNCH(settle_bounds, grid, kFilterThreads, shared, sides.stream, keys, pitch, scores.query, scores.base,
             sides.units, distances, indices, failures, queries, candidates, k);
    } else {
      LAUNCH(settle, grid, kFilterThreads, shared, sides.stream, keys, pitch, scores.query, scores.base, sides.units,
             distances, indices, failures, queries, candidates, k);
    }
  }

  // How many candidates these scores want at first.
  int wanted(const Scores<float>& scores) const { return scores.bounds ? kept_bounds : kept; }

  // Whether all rows are searched by half of the products.
  bool half() const { return sides.self() && worth_lists(sides.base().n, block, kept_bounds); }

  // All queries.
  void run_all(const Scores<float>& scores, Failures failures) const {
    const int64_t n = scores.query.n;
    if (!half()) {
      run(scores, nullptr, n, wanted(scores), failures);
      return;
    }
    Candidates found = list_candidates(scores, block, wanted(scores), sides.stream);
    const CandidateLists lists = found.lists();
    settle_rows(scores, lists.keys, lists.room, {nullptr, 0}, n, wanted(scores), failures);
  }

  // The `count` queries of `list` without candidates.
  void run_exactly(const int64_t* list, int64_t count) const {
    const Tensor& like = sides.base_side.original;
    const int64_t n = sides.base().n, fit = std::clamp<int64_t>(device_bytes() / 64 / (8 * n), 1, count);
    halve_on_failure(fit, 1, [&](int64_t rows) {
      const Tensor scratch = device_empty(like, {rows, n}, ScalarType::Double);
      auto* exact = scratch.mutable_data_ptr<double>();
      for (int64_t first = 0; first < count; first += rows) {
        const int64_t here = std::min(rows, count - first);
        const Queries queries{list, first};
        LAUNCH(compare_with_all, warps_grid(here * n), kFilterThreads, 0, sides.stream, sides.query(), sides.base(),
               sides.units, exact, queries, here);
        LAUNCH(take_smallest, static_cast<unsigned>(here), kFilterThreads, 0, sides.stream, exact, n,
               sides.units.metric, distances, indices, queries, k);
      }
    });
  }

  // All columns or prefixes, for all queries. `width`: see Sides. The pilots' answers are overwritten.
  Scores<float> choose_scores(int64_t width) const {
    const double score = half() ? kSearchedBoth : kSelected, part = half() ? 0.5 : 1.0;
    const SearchSize size{sides.query().n, sides.base().n, sides.base().d, sides.self(), score, part, 1};
    return sides.choose(width, size, [&](const Scores<float>& scores, const int64_t* list, int64_t count) {
      Doubts doubts(sides.base_side.original, count);
      Tensor compared = device_zeros(sides.base_side.original, {}, ScalarType::Long);
      Failures failures = doubts.failures();
      failures.compared = counter(compared);
      run(scores, list, count, wanted(scores), failures);
      const auto number = [&](Tensor& of) { return static_cast<double>(read_back(counter(of), sides.stream)); };
      return Pilot{number(compared), number(doubts.count)};
    });
  }
};

// (distances [M, k] f32, indices [M, k] i64, number of rows that the first search left in doubt). `block`: rows of a
// tile, 0 chooses; `width`: see Sides. Both are for tests.
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

  const Search search{{base_side, y ? query_side : base_side, units, stream},
                      k,
                      block,
                      static_cast<int>(kept),
                      static_cast<int>(kept_bounds),
                      distances.mutable_data_ptr<float>(),
                      indices.mutable_data_ptr<int64_t>()};
  search.run_all(search.choose_scores(width), doubts.failures());
  Tensor failed = doubts.list;
  auto left = static_cast<int64_t>(read_back(counter(doubts.count), stream));
  if (left > 0 && many > kept) {
    Doubts again(x, left);
    const auto* list = failed.const_data_ptr<int64_t>();
    search.run(search.sides.all_columns().gathered(list, left, stream), list, left, static_cast<int>(many),
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
