#include "exact_distance.h"

#include <algorithm>

#include "clones.h"
#include "parallel.h"

namespace ise_fast {

namespace {

// term(query, row) of every lane of dot.h, for kRows rows at once: the query is converted once for all. The rows `next`
// are fetched meanwhile, since the processor cannot guess where they lie.
template <int kRows, class T, class Term>
[[gnu::always_inline]] inline void sum_lanes(const T* query, const T* const (&row)[kRows],
                                             const T* const (&next)[kRows], int64_t d, double* out, const Term& term) {
  double sum[kRows][kDotLanes] = {};
  int64_t i = 0;
  for (; i + kDotLanes <= d; i += kDotLanes) {
    for (int r = 0; r < kRows; ++r) {
      for (int64_t line = i; line < i + kDotLanes; line += 64 / sizeof(T)) __builtin_prefetch(next[r] + line);
    }
    for (int lane = 0; lane < kDotLanes; ++lane) {
      const double value = query[i + lane];
      for (int r = 0; r < kRows; ++r) sum[r][lane] += term(value, static_cast<double>(row[r][i + lane]));
    }
  }
  for (int lane = 0; i < d; ++i, ++lane) {
    for (int r = 0; r < kRows; ++r) sum[r][lane] += term(query[i], row[r][i]);
  }
  for (int r = 0; r < kRows; ++r) out[r] = fold_dot_lanes(sum[r]);
}

template <class T, class Term>
[[gnu::always_inline]] inline void against_rows(const T* query, const T* base, int64_t d, const int32_t* index,
                                                int64_t n, double* out, const Term& term) {
  const auto at = [&](int64_t r) { return base + index[std::min(r, n - 1)] * d; };
  int64_t r = 0;
  for (; r + 2 <= n; r += 2) sum_lanes<2>(query, {at(r), at(r + 1)}, {at(r + 2), at(r + 3)}, d, out + r, term);
  if (r < n) sum_lanes<1>(query, {at(r)}, {at(r)}, d, out + r, term);
}

constexpr auto kSquaredDifference = [](double a, double b) { return (a - b) * (a - b); };
constexpr auto kProduct = [](double a, double b) { return a * b; };

}  // namespace

ISE_CLONES void squared_distances(const float* query, const float* base, int64_t d, const int32_t* index, int64_t n,
                                  double* out) {
  against_rows(query, base, d, index, n, out, kSquaredDifference);
}

ISE_CLONES void squared_distances(const double* query, const double* base, int64_t d, const int32_t* index, int64_t n,
                                  double* out) {
  against_rows(query, base, d, index, n, out, kSquaredDifference);
}

ISE_CLONES void dots(const float* query, const float* base, int64_t d, const int32_t* index, int64_t n, double* out) {
  against_rows(query, base, d, index, n, out, kProduct);
}

ISE_CLONES void dots(const double* query, const double* base, int64_t d, const int32_t* index, int64_t n, double* out) {
  against_rows(query, base, d, index, n, out, kProduct);
}

namespace {

template <class T>
std::vector<double> squared_lengths_of(const T* rows, int64_t n, int64_t d) {
  std::vector<double> squared(n);
  parallel_for(0, n, 16, [&](int64_t begin, int64_t end) {
    const int32_t first = 0;
    for (int64_t i = begin; i < end; ++i) dots(rows + i * d, rows + i * d, d, &first, 1, &squared[i]);
  });
  return squared;
}

}  // namespace

std::vector<double> squared_lengths(const float* rows, int64_t n, int64_t d) {
  return squared_lengths_of(rows, n, d);
}
std::vector<double> squared_lengths(const double* rows, int64_t n, int64_t d) {
  return squared_lengths_of(rows, n, d);
}

}  // namespace ise_fast
