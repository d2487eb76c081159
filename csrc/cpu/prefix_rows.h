// Rows by a few of their principal axes, and bounds of inner products from these alone.
//
// Q [d, w] has nearly orthonormal columns, p = Q^T x is the prefix of a row and t at least the length of what the
// prefix leaves of it. Then
//   p_q.p_b - t_q t_b <= q.b <= p_q.p_b + t_q t_b
//
// Rounding. The computed prefix is wrong by at most e ||x||, e = (chunk + chunks of d) u ||Q||_F + 2 u (sums of
// 128 terms in any order, added one after the other; the rounded factor), the columns are skewed, ||Q^T Q - 1|| <= s,
// and a product of w + 1 columns, t being one of them, is rounded. All of it goes into t:
//   t^2 = (1 + E) ||x||^2 - ||p||^2 / (1 + s)
// 2 e of E make t at least the rest's length, though p is the computed prefix. The others make t_q t_b larger by
// their part of E times ||q|| ||b|| (Cauchy-Schwarz), so that it holds the error of p_q.p_b, (2 e + 2 s) ||q|| ||b||,
// and of the product.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "axes.h"
#include "matrix.h"
#include "parallel.h"

namespace ise_fast {

inline constexpr int64_t kPrefixChunk = 128;  // columns of d that one product adds up

// Widths worth a look: one less than a multiple of 16, since the rest is one more column.
inline constexpr int64_t kPrefixWidths[] = {7, 15, 31, 47, 63, 95, 127, 191, 255, 383, 511};

// E above, for a prefix of `width` columns. Infinite where such a prefix is of no use: then nothing is known of t.
// `factor_rounding`: of the library's products (matrix.h).
double prefix_slack(double factor_rounding, const Axes& axes, int64_t width);

// t above, for a row of this length.
float rest_length(double length, double prefix_squared, double slack, double skew);

// use(i, prefix of row i) for every row, by several threads.
template <class Use>
void for_prefixes(Matrix<const float> x, const Axes& axes, int64_t width, const Use& use) {
  constexpr int64_t kHeight = 128;  // rows at a time
  const Matrix<const float> q{axes.q.data(), axes.d, axes.width, axes.width};
  parallel_tasks((x.rows + kHeight - 1) / kHeight, [&](int64_t task) {
    const int64_t row = task * kHeight, rows = std::min(kHeight, x.rows - row);
    std::vector<float> part(rows * width), sum(rows * width);
    for (int64_t c = 0; c < axes.d; c += kPrefixChunk) {
      const int64_t columns = std::min(kPrefixChunk, axes.d - c);
      multiply_tile(Matrix<float>{part.data(), rows, width, width}, x.block(row, rows, c, columns),
                    q.block(c, columns, 0, width), false);
      for (int64_t e = 0; e < rows * width; ++e) sum[e] += part[e];
    }
    for (int64_t r = 0; r < rows; ++r) use(row + r, sum.data() + r * width);
  });
}

}  // namespace ise_fast
