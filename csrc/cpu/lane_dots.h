// Approximate inner products of one row with a few chosen ones, in lanes: as good as the library's, which is for many.
#pragma once

#include <cstdint>

namespace ise_fast {

// out[r] = query . row index[r] of base, in the precision of the rows; the order of the sum is not documented.
void approximate_dots(const float* query, const float* base, int64_t d, const int32_t* index, int64_t n, float* out);
void approximate_dots(const double* query, const double* base, int64_t d, const int32_t* index, int64_t n, double* out);

}  // namespace ise_fast
