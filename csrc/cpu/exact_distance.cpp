#include "exact_distance.h"

#include <torch/csrc/stable/ops.h>

#include "clones.h"

namespace ise_fast {

ISE_CLONES void squared_distances(const float* query, const float* base, int64_t d, const int32_t* index, int64_t n,
                                  double* out) {
  for (int64_t r = 0; r < n; ++r) out[r] = squared_distance(query, base + index[r] * d, d);
}

ISE_CLONES void squared_distances(const double* query, const double* base, int64_t d, const int32_t* index, int64_t n,
                                  double* out) {
  for (int64_t r = 0; r < n; ++r) out[r] = squared_distance(query, base + index[r] * d, d);
}

ISE_CLONES void dots(const float* query, const float* base, int64_t d, const int32_t* index, int64_t n, double* out) {
  for (int64_t r = 0; r < n; ++r) out[r] = dot(query, base + index[r] * d, d);
}

ISE_CLONES void dots(const double* query, const double* base, int64_t d, const int32_t* index, int64_t n, double* out) {
  for (int64_t r = 0; r < n; ++r) out[r] = dot(query, base + index[r] * d, d);
}

namespace {

template <class T>
std::vector<double> squared_lengths_of(const T* rows, int64_t n, int64_t d) {
  std::vector<double> squared(n);
  torch::stable::parallel_for(0, n, 16, [&](int64_t begin, int64_t end) {
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
