// Arithmetic on rows of numbers in one fixed order: float32 vectorised by the loader's choice of copy, float64 plain
// (it serves gradient checks).
#pragma once

#include <cstdint>

namespace ise_fast {

// A weighted row of some matrix.
template <class T>
struct Term {
  T weight;
  const T* row;
};

// Inner product in float64, lanes as in math/dot.h.
double inner_product(const float* a, const float* b, int64_t d);
double inner_product(const double* a, const double* b, int64_t d);

// out = f + degree (m - o)
void interpolate(float* out, const float* f, const float* m, const float* o, float degree, int64_t d);
void interpolate(double* out, const double* f, const double* m, const double* o, double degree, int64_t d);

// out = row / divisor
void divide(float* out, const float* row, float divisor, int64_t d);
void divide(double* out, const double* row, double divisor, int64_t d);

// out = (keep ? out : 0) + sum of weight x row[begin : end), terms in order; out is indexed from begin, too.
void combine(float* out, bool keep, const Term<float>* terms, int64_t count, int64_t begin, int64_t end);
void combine(double* out, bool keep, const Term<double>* terms, int64_t count, int64_t begin, int64_t end);

// sum += row
void add_row(double* sum, const float* row, int64_t n);
void add_row(double* sum, const double* row, int64_t n);

// sum += row of each, in their order: several streams of memory at once, and the sum is stored once for all of them.
void add_rows(double* sum, const float* const* rows, int64_t count, int64_t n);
void add_rows(double* sum, const double* const* rows, int64_t count, int64_t n);

}  // namespace ise_fast
