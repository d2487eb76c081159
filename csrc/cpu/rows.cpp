// Arithmetic on rows of numbers, each written once for float32 and float64.
#include "rows.h"

#include <algorithm>

#include "../math/dot.h"
#include "clones.h"

namespace ise_fast {
namespace {

constexpr int kStrip = 64;  // columns whose sums stay in registers

template <class T>
[[gnu::always_inline]] inline void interpolate_row(T* __restrict out, const T* f, const T* m, const T* o, T degree,
                                                   int64_t d) {
  for (int64_t i = 0; i < d; ++i) out[i] = f[i] + degree * (m[i] - o[i]);
}

template <class T>
[[gnu::always_inline]] inline void divide_row(T* out, const T* row, T divisor, int64_t d) {
  for (int64_t i = 0; i < d; ++i) out[i] = row[i] / divisor;
}

template <class T>
[[gnu::always_inline]] inline void combine_rows(T* __restrict out, bool keep, const Term<T>* terms, int64_t count,
                                                int64_t begin, int64_t end) {
  for (int64_t c = begin; c < end; c += kStrip) {
    T sum[kStrip] = {};
    const int64_t width = std::min<int64_t>(kStrip, end - c);
    if (keep) std::copy(out + c, out + c + width, sum);
    if (width == kStrip) {
      for (int64_t t = 0; t < count; ++t) {
        const T* row = terms[t].row + c;
        const T weight = terms[t].weight;
        for (int i = 0; i < kStrip; ++i) sum[i] += weight * row[i];
      }
    } else {
      for (int64_t t = 0; t < count; ++t) {
        for (int64_t i = 0; i < width; ++i) sum[i] += terms[t].weight * terms[t].row[c + i];
      }
    }
    std::copy(sum, sum + width, out + c);
  }
}

}  // namespace

ISE_CLONES double inner_product(const float* a, const float* b, int64_t d) {
  return dot(a, b, d);
}

double inner_product(const double* a, const double* b, int64_t d) {
  double partial[kDotLanes] = {};
  for (int64_t i = 0; i < d; ++i) partial[i % kDotLanes] += a[i] * b[i];
  return fold_dot_lanes(partial);
}

ISE_CLONES void interpolate(float* out, const float* f, const float* m, const float* o, float degree, int64_t d) {
  interpolate_row(out, f, m, o, degree, d);
}
void interpolate(double* out, const double* f, const double* m, const double* o, double degree, int64_t d) {
  interpolate_row(out, f, m, o, degree, d);
}

ISE_CLONES void divide(float* out, const float* row, float divisor, int64_t d) {
  divide_row(out, row, divisor, d);
}
void divide(double* out, const double* row, double divisor, int64_t d) {
  divide_row(out, row, divisor, d);
}

ISE_CLONES void combine(float* out, bool keep, const Term<float>* terms, int64_t count, int64_t begin, int64_t end) {
  combine_rows(out, keep, terms, count, begin, end);
}
void combine(double* out, bool keep, const Term<double>* terms, int64_t count, int64_t begin, int64_t end) {
  combine_rows(out, keep, terms, count, begin, end);
}

}  // namespace ise_fast
