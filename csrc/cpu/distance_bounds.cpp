#include "distance_bounds.h"

#include <algorithm>
#include <cfloat>
#include <cmath>

#include "clones.h"

namespace ise_fast {
namespace {

constexpr float kBelow = 0.9999998f;  // pays for rounding

// Never infinite: of two such bounds the difference would be NaN.
[[gnu::always_inline]] inline float root(double square) {
  const double length = std::sqrt(square > 0 ? square : 0.0);
  return static_cast<float>(length < FLT_MAX ? length : FLT_MAX) * kBelow;
}

template <class T>
[[gnu::always_inline]] inline void fill(float* bound, double own, const T* score, int64_t n) {
  for (int64_t c = 0; c < n; ++c) bound[c] = root(own - 2 * static_cast<double>(score[c]));
}

}  // namespace

ISE_CLONES void lower_bounds(float* bound, const float* moved, int64_t n) {
  for (int64_t c = 0; c < n; ++c) bound[c] = (bound[c] - moved[c]) * kBelow;
}

ISE_CLONES void raise_bounds(float* bound, double own, const double* other, const float* product, int64_t n) {
  for (int64_t c = 0; c < n; ++c) {
    bound[c] = std::max(bound[c], root(own + other[c] - 2 * static_cast<double>(product[c])));
  }
}

ISE_CLONES void fill_bounds(float* bound, double own, const float* score, int64_t n) {
  fill(bound, own, score, n);
}
ISE_CLONES void fill_bounds(float* bound, double own, const double* score, int64_t n) {
  fill(bound, own, score, n);
}

ISE_CLONES int64_t bounds_within(const float* bound, float limit, int64_t n) {
  int64_t count = 0;
  for (int64_t c = 0; c < n; ++c) count += bound[c] <= limit;
  return count;
}

}  // namespace ise_fast
