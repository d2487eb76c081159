// Exact distances (math/distance.h) from one row to chosen rows, vectorised.
#pragma once

#include <cstdint>
#include <vector>

#include "../math/distance.h"

namespace ise_fast {

// out[r] = the squared distance of query and base + index[r] * d, as distance.h defines it.
void squared_distances(const float* query, const float* base, int64_t d, const int32_t* index, int64_t n, double* out);
void squared_distances(const double* query, const double* base, int64_t d, const int32_t* index, int64_t n,
                       double* out);

// out[r] = dot(query, base + index[r] * d).
void dots(const float* query, const float* base, int64_t d, const int32_t* index, int64_t n, double* out);
void dots(const double* query, const double* base, int64_t d, const int32_t* index, int64_t n, double* out);

// dot(row, row) for every row, in parallel.
std::vector<double> squared_lengths(const float* rows, int64_t n, int64_t d);
std::vector<double> squared_lengths(const double* rows, int64_t n, int64_t d);

// Rows to compare and how.
template <class T>
struct ExactDistance {
  const T* query;
  const T* base;
  int64_t d;
  Metric metric;
  const double* query_squared;  // dot(row, row) of every query: the cosine needs it
  const double* base_squared;

  // out[r] = the compared distance (squared for euclidean) from query i to base row index[r].
  void operator()(int64_t i, const int32_t* index, int64_t n, double* out) const {
    if (metric != Metric::kCosine) return squared_distances(query + i * d, base, d, index, n, out);
    dots(query + i * d, base, d, index, n, out);
    for (int64_t r = 0; r < n; ++r) out[r] = cosine_distance(out[r], query_squared[i], base_squared[index[r]]);
  }
};

}  // namespace ise_fast
