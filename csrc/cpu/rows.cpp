// Arithmetic on rows of numbers, each written once for float32 and float64.
#include "rows.h"

#include "../math/dot.h"
#include "clones.h"

namespace ise_fast {
namespace {

template <class T>
[[gnu::always_inline]] inline void interpolate_row(T* __restrict out, const T* f, const T* m, const T* o, T degree,
                                                   int64_t d) {
  for (int64_t i = 0; i < d; ++i) out[i] = f[i] + degree * (m[i] - o[i]);
}

template <class T>
[[gnu::always_inline]] inline void divide_row(T* out, const T* row, T divisor, int64_t d) {
  for (int64_t i = 0; i < d; ++i) out[i] = row[i] / divisor;
}

// Explicit vectors: from a plain array the compiler makes loads and stores in the innermost loop.
template <class T>
[[gnu::always_inline]] inline void combine_rows(T* __restrict out, bool keep, const Term<T>* terms, int64_t count,
                                                int64_t begin, int64_t end) {
  using Vector [[gnu::vector_size(32), gnu::aligned(alignof(T)), gnu::may_alias]] = T;
  constexpr int64_t kStrip = 4 * sizeof(Vector) / sizeof(T);
  int64_t c = begin;
  for (; c + kStrip <= end; c += kStrip) {
    auto* const to = reinterpret_cast<Vector*>(out + c);
    Vector a{}, b{}, e{}, g{};
    if (keep) {
      a = to[0];
      b = to[1];
      e = to[2];
      g = to[3];
    }
    for (int64_t t = 0; t < count; ++t) {
      const auto* const from = reinterpret_cast<const Vector*>(terms[t].row + c);
      const T weight = terms[t].weight;
      a += weight * from[0];
      b += weight * from[1];
      e += weight * from[2];
      g += weight * from[3];
    }
    to[0] = a;
    to[1] = b;
    to[2] = e;
    to[3] = g;
  }
  for (; c < end; ++c) {
    T sum = keep ? out[c] : T{0};
    for (int64_t t = 0; t < count; ++t) sum += terms[t].weight * terms[t].row[c];
    out[c] = sum;
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

ISE_CLONES void add_row(double* sum, const float* row, int64_t n) {
  for (int64_t c = 0; c < n; ++c) sum[c] += row[c];
}
void add_row(double* sum, const double* row, int64_t n) {
  for (int64_t c = 0; c < n; ++c) sum[c] += row[c];
}

ISE_CLONES void add_rows(double* sum, const float* const* rows, int64_t count, int64_t n) {
  int64_t r = 0;
  for (; r + 4 <= count; r += 4) {
    const float *a = rows[r], *b = rows[r + 1], *c = rows[r + 2], *d = rows[r + 3];
    for (int64_t i = 0; i < n; ++i) sum[i] = (((sum[i] + a[i]) + b[i]) + c[i]) + d[i];
  }
  for (; r < count; ++r) add_row(sum, rows[r], n);
}
void add_rows(double* sum, const double* const* rows, int64_t count, int64_t n) {
  for (int64_t r = 0; r < count; ++r) add_row(sum, rows[r], n);
}

}  // namespace ise_fast
