// Lower bounds of the distances of one row from n centres, as Lloyd's iterations keep them (lloyd.h): float32, below
// what they bound whatever the rounding.
#pragma once

#include <cstdint>

namespace ise_fast {

// After the centres moved by at most `moved`.
void lower_bounds(float* bound, const float* moved, int64_t n);

// bound[c] = the root of own + other[c] - 2 product[c], which is at most the squared distance, if that is more.
void raise_bounds(float* bound, double own, const double* other, const float* product, int64_t n);

// bound[c] = the root of own - 2 score[c]; 0 if that is NaN.
void fill_bounds(float* bound, double own, const float* score, int64_t n);
void fill_bounds(float* bound, double own, const double* score, int64_t n);

// How many are at most `limit`.
int64_t bounds_within(const float* bound, float limit, int64_t n);

}  // namespace ise_fast
