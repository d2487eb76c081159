// Support samples (ISE, section 3.2) of a batch, as the operators of the head see them.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "head.h"

namespace ise_fast {

inline constexpr double kShortestNorm = 1e-12;  // as torch.nn.functional.normalize

template <class T>
struct Supports {
  int64_t k;               // 0: none
  const int64_t* nearest;  // [B, k]
  T* row;                  // [B, k, d] unit
  T* norm;                 // [B, k] before division, at least 1e-12
};

// Row i: s_j = u_j / ||u_j|| with u_j = f + degree (m_j - o).
template <class T>
void fill_supports(const Head<T>& head, const Supports<T>& supports, T degree, int64_t i) {
  const int64_t d = head.d;
  for (int64_t j = i * supports.k; j < (i + 1) * supports.k; ++j) {
    T* out = supports.row + j * d;
    interpolate(out, head.feature + i * d, head.centroid + supports.nearest[j] * d, head.centroid + head.label[i] * d,
                degree, d);
    supports.norm[j] = static_cast<T>(std::max(std::sqrt(inner_product(out, out, d)), kShortestNorm));
    divide(out, out, supports.norm[j], d);
  }
}

// After fill_supports of all rows: a support that is no number betrays the centroids, of which only those in use are
// looked at.
template <class T>
void check_supports(const Head<T>& head, const Supports<T>& supports) {
  for (int64_t j = 0; j < head.rows * supports.k; ++j) {
    if (std::isfinite(supports.norm[j])) [[likely]]
      continue;
    for (const int64_t c : {head.label[j / supports.k], supports.nearest[j]}) {
      row_lengths(head.centroid + c * head.d, 1, head.d, "centroids");
    }
    check(false, "centroids: expected differences that the dtype can hold, got a longer one for row ", j / supports.k);
  }
}

}  // namespace ise_fast
