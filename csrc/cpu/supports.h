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

}  // namespace ise_fast
