// What a search for near rows multiplies: all columns of both sides, or prefixes along principal axes, where pilots
// predict that these are cheaper (prefix_cost.h). knn and radius_graph search by either.
#pragma once

#include <optional>

#include "prefix.cuh"
#include "prefix_cost.h"

namespace ise_fast {
namespace {

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

inline unsigned long long* counter(Tensor& tensor) {
  return reinterpret_cast<unsigned long long*>(tensor.mutable_data_ptr<int64_t>());
}

// Factors of a product, and how far the scores that come of it can be from the exact ones.
template <class T>
struct Scores {
  FilterRows<T> query, base;
  Tensor query_rows, base_rows;      // new_rounded
  bool bounds;                       // from below (prefix.cuh), not to both sides
  Prefix query_prefix, base_prefix;  // own what `query` and `base` point to

  // The same for the queries of a list alone, their float16 rows in one piece.
  Scores gathered(const int64_t* list, int64_t count, cudaStream_t stream) const {
    const int64_t columns = base_rows.size(1);
    Scores few = *this;
    few.query_rows = device_empty(query_rows, {count, columns});
    LAUNCH(gather_rows, warps_grid(count), kFilterThreads, 0, stream,
           static_cast<const __half*>(query_rows.const_data_ptr()), list,
           static_cast<__half*>(few.query_rows.mutable_data_ptr()), count, columns);
    return few;
  }
};

// Both sides of a search, prepared: one side twice where rows are compared with each other.
template <class T>
struct Sides {
  const FilterSide &base_side, &query_side;
  FilterUnits units;
  cudaStream_t stream;

  FilterRows<T> base() const { return base_side.rows<T>(); }
  FilterRows<T> query() const { return query_side.rows<T>(); }
  bool self() const { return &query_side == &base_side; }
  Scores<T> all_columns() const { return {query(), base(), query_side.rounded, base_side.rounded, false, {}, {}}; }

  // Prefixes of `width` columns.
  Scores<T> prefixes(int64_t width) const {
    Tensor rounded = base_side.rounded;
    const Axes axes = principal_axes(torch::stable::narrow(rounded, 0, 0, base().n), width, stream);
    const Prefix of_base = make_prefix<T>(base_side, axes, units, stream);
    const Prefix of_query = self() ? of_base : make_prefix<T>(query_side, axes, units, stream);
    return {of_query.of(query()), of_base.of(base()), of_query.rows, of_base.rows, true, of_query, of_base};
  }

  // What all queries are searched by. `width`: columns of a prefix, 0 chooses, kNoPrefix for none, -2 chooses even for
  // a search so small that nothing can be gained; `size`: of the search. fly(scores, list, count) searches the queries
  // of a list and tells what it saw of all of them.
  template <class Fly>
  Scores<T> choose(int64_t width, const SearchSize& size, const Fly& fly) const {
    if (size.queries == 0 || size.base == 0 || width == kNoPrefix) return all_columns();
    if (width > 0) return prefixes(std::min(width, size.d));
    if (width == 0 && !worth_a_pilot(size)) return all_columns();
    const int64_t count = std::min(size.queries, kPilotQueries);
    Tensor list = device_empty(base_side.original, {count}, ScalarType::Long);
    LAUNCH(list_evenly, static_cast<unsigned>((count + kFilterThreads - 1) / kFilterThreads), kFilterThreads, 0, stream,
           list.mutable_data_ptr<int64_t>(), count, size.queries);
    const auto pilot = [&](const Scores<T>& scores) {
      const auto* few = list.const_data_ptr<int64_t>();
      const Pilot seen = fly(scores.gathered(few, count, stream), few, count);
      return Pilot{seen.compared / static_cast<double>(count), seen.failed / static_cast<double>(count)};
    };
    const double most = kWorthwhile * predicted_cost(size, pilot(all_columns()));
    for (const int64_t columns : prefix_columns(size.d)) {
      Scores<T> scores = prefixes(columns - 1);
      const Pilot seen = pilot(scores);
      if (predicted_cost(size, columns, seen) < most) return scores;
      if (seen.failed > kHopeless) break;
    }
    return all_columns();
  }
};

}  // namespace
}  // namespace ise_fast
