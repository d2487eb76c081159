#include "lane_dots.h"

#include <algorithm>

#include "clones.h"

namespace ise_fast {
namespace {

template <class T>
[[gnu::always_inline]] inline void dots_in_lanes(const T* query, const T* base, int64_t d, const int32_t* index,
                                                 int64_t n, T* out) {
  using Vector [[gnu::vector_size(32), gnu::aligned(alignof(T)), gnu::may_alias]] = T;
  constexpr int64_t kWidth = sizeof(Vector) / sizeof(T);
  const auto vector = [](const T* from) -> const Vector& { return *reinterpret_cast<const Vector*>(from); };
  for (int64_t r = 0; r < n; r += 4) {
    const auto at = [&](int64_t q) { return base + index[std::min(r + q, n - 1)] * d; };
    const T* const rows[4] = {at(0), at(1), at(2), at(3)};
    Vector a{}, b{}, c{}, e{}, a2{}, b2{}, c2{}, e2{};
    int64_t i = 0;
    for (; i + 2 * kWidth <= d; i += 2 * kWidth) {
      const Vector x = vector(query + i), y = vector(query + i + kWidth);
      a += x * vector(rows[0] + i);
      b += x * vector(rows[1] + i);
      c += x * vector(rows[2] + i);
      e += x * vector(rows[3] + i);
      a2 += y * vector(rows[0] + i + kWidth);
      b2 += y * vector(rows[1] + i + kWidth);
      c2 += y * vector(rows[2] + i + kWidth);
      e2 += y * vector(rows[3] + i + kWidth);
    }
    const Vector sums[4] = {a + a2, b + b2, c + c2, e + e2};
    for (int64_t q = 0; q < 4 && r + q < n; ++q) {
      T total = 0;
      for (int64_t lane = 0; lane < kWidth; ++lane) total += sums[q][lane];
      for (int64_t j = i; j < d; ++j) total += query[j] * rows[q][j];
      out[r + q] = total;
    }
  }
}

}  // namespace

ISE_CLONES void approximate_dots(const float* query, const float* base, int64_t d, const int32_t* index, int64_t n,
                                 float* out) {
  dots_in_lanes(query, base, d, index, n, out);
}
void approximate_dots(const double* query, const double* base, int64_t d, const int32_t* index, int64_t n,
                      double* out) {
  dots_in_lanes(query, base, d, index, n, out);
}

}  // namespace ise_fast
