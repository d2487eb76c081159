#include "close_rows.h"

#include <algorithm>
#include <cfloat>
#include <cmath>

#include "exact_distance.h"

namespace ise_fast {
namespace {

// (|q - p| + D)^2 over the error of the distance, at most: then the differences' error is 64 d u of what it was.
constexpr double kReach = 64;

// A pivot is compared with all rows; that must be little beside what the queries save each other.
int64_t least_queries(int64_t base) {
  return std::max<int64_t>(256, 4 * static_cast<int64_t>(std::sqrt(base)));
}

// Distances of `pivot` from the rows number(0), number(1), ..., number(count - 1).
template <class Number>
std::vector<double> distances_from(const float* pivot, const float* rows, int64_t d, int64_t count,
                                   const Number& number) {
  constexpr int64_t kGrain = 128;
  std::vector<double> out(count);
  parallel_for(0, count, kGrain, [&](int64_t begin, int64_t end) {
    int32_t index[kGrain];
    for (int64_t r = begin; r < end; ++r) index[r - begin] = static_cast<int32_t>(number(r));
    squared_distances(pivot, rows, d, index, end - begin, out.data() + begin);
    for (int64_t r = begin; r < end; ++r) out[r] = std::sqrt(out[r]);
  });
  return out;
}

}  // namespace

CloseRows CloseRowFinder::take(const Part& part, std::vector<Uncertain>& uncertain) const {
  const int64_t n = part.filter.base().rows.size(0);
  const auto limit = [&](const Uncertain& row) { return std::sqrt(kReach * part.filter.distance_margin(row.first)); };
  const auto promising = [&](const Uncertain& row) { return std::sqrt(row.second) <= limit(row); };
  CloseRows close;
  if (std::count_if(uncertain.begin(), uncertain.end(), promising) < least_queries(n)) return close;

  const Uncertain chosen = *std::find_if(uncertain.begin(), uncertain.end(), promising);
  const float* const pivot = queries_ + part.query(chosen.first) * d_;
  const std::vector<double> to_query = distances_from(pivot, queries_, d_, static_cast<int64_t>(uncertain.size()),
                                                      [&](int64_t s) { return part.query(uncertain[s].first); });
  double furthest = 0;
  std::vector<Uncertain> others;
  for (size_t s = 0; s < uncertain.size(); ++s) {
    const double reach = to_query[s] + std::sqrt(uncertain[s].second);
    const bool near = reach <= limit(chosen) || uncertain[s] == chosen;
    (near ? close.uncertain : others).push_back(uncertain[s]);
    if (near) furthest = std::max(furthest, reach);
  }
  uncertain = std::move(others);
  // Rows that are all equal are settled quickly as they are; differences of rows at the end of float32 may be beyond
  // it.
  const bool worth = static_cast<int64_t>(close.uncertain.size()) >= least_queries(n);
  if (!worth || !(0 < furthest && furthest < FLT_MAX / 2)) return close;

  for (const Uncertain& row : close.uncertain) close.query.push_back(static_cast<int32_t>(part.query(row.first)));
  const std::vector<double> to_base =
      distances_from(pivot, base_, d_, n, [&](int64_t j) { return part.base(static_cast<int32_t>(j)); });
  for (int64_t j = 0; j < n; ++j) {
    if (to_base[j] <= furthest * (1 + 1e-6)) close.base.push_back(part.base(static_cast<int32_t>(j)));
  }
  const Tensor& like = part.filter.base().rows;
  close.base_differences = differences(base_, close.base, pivot, like);
  const bool same = queries_ == base_ && close.query == close.base;
  close.query_differences = same ? close.base_differences : differences(queries_, close.query, pivot, like);
  return close;
}

PairFilter CloseRowFinder::filter(const CloseRows& close) const {
  constexpr double kRounded = 1.01 * 0x1p-24;
  const bool same = queries_ == base_ && close.query == close.base;
  return PairFilter(close.base_differences, same ? nullptr : &close.query_differences, Metric::kSquaredEuclidean,
                    kRounded);
}

Tensor CloseRowFinder::differences(const float* rows, const std::vector<int32_t>& index, const float* pivot,
                                   const Tensor& like) const {
  const auto count = static_cast<int64_t>(index.size());
  Tensor out = new_tensor(like, {count, d_}, ScalarType::Float);
  auto* to = out.mutable_data_ptr<float>();
  parallel_for(0, count, 16, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* row = rows + index[r] * d_;
      for (int64_t c = 0; c < d_; ++c) to[r * d_ + c] = static_cast<float>(static_cast<double>(row[c]) - pivot[c]);
    }
  });
  return out;
}

}  // namespace ise_fast
