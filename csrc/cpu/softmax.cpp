// The softmax rows of the contrastive loss: two loops over columns, vectorised.
#include "softmax.h"

#include <algorithm>

#include "../math/exp_bounded.h"
#include "clones.h"

namespace ise_fast {
namespace {

template <class T>
[[gnu::always_inline]] inline T relative_cosine(const SoftmaxRow<T>& row, int64_t c) {
  return (row.z[c] + row.degree * (row.gram_m[c] - row.gram_o[c])) * row.inverse_norm - row.own;
}

template <bool kKeep, class T>
[[gnu::always_inline]] inline SoftmaxSums sums(const SoftmaxRow<T> row, T* __restrict kept, int64_t begin,
                                               int64_t end) {
  SoftmaxSums total = {0, 0};
  for (int64_t piece = begin; piece < end; piece += kSoftmaxPiece) {
    const int64_t piece_end = std::min(end, piece + kSoftmaxPiece);
    T s[kSoftmaxLanes] = {}, t[kSoftmaxLanes] = {};
    int64_t c = piece;
    for (; c + kSoftmaxLanes <= piece_end; c += kSoftmaxLanes) {
      for (int l = 0; l < kSoftmaxLanes; ++l) {
        const T cosine = relative_cosine(row, c + l);
        const T e = exp_bounded(cosine * row.inverse_tau - row.top);
        s[l] += e;
        t[l] += e * cosine;
        if constexpr (kKeep) kept[c + l - begin] = e;
      }
    }
    if (c < piece_end) {  // the same for a part of the lanes
      const int64_t count = piece_end - c;
      T z[kSoftmaxLanes] = {}, gram_m[kSoftmaxLanes] = {}, gram_o[kSoftmaxLanes] = {}, e[kSoftmaxLanes];
      std::copy_n(row.z + c, count, z);
      std::copy_n(row.gram_m + c, count, gram_m);
      std::copy_n(row.gram_o + c, count, gram_o);
      const SoftmaxRow<T> rest = {z, gram_m, gram_o, row.degree, row.inverse_norm, row.own, row.inverse_tau, row.top};
      for (int l = 0; l < kSoftmaxLanes; ++l) {
        const T cosine = relative_cosine(rest, l);
        const T all = exp_bounded(cosine * row.inverse_tau - row.top);
        e[l] = l < count ? all : T{0};
        s[l] += e[l];
        t[l] += e[l] * cosine;
      }
      if constexpr (kKeep) std::copy_n(e, count, kept + (c - begin));
    }
    for (int l = 0; l < kSoftmaxLanes; ++l) {
      total.s += s[l];
      total.t += t[l];
    }
  }
  return total;
}

template <class T>
[[gnu::always_inline]] inline T largest(const SoftmaxRow<T> row, int64_t begin, int64_t end) {
  T top[kSoftmaxLanes];
  std::fill(top, top + kSoftmaxLanes, row.top);
  int64_t c = begin;
  for (; c + kSoftmaxLanes <= end; c += kSoftmaxLanes) {
    for (int l = 0; l < kSoftmaxLanes; ++l) {
      const T logit = relative_cosine(row, c + l) * row.inverse_tau;
      top[l] = logit > top[l] ? logit : top[l];
    }
  }
  for (; c < end; ++c) top[0] = std::max(top[0], relative_cosine(row, c) * row.inverse_tau);
  return *std::max_element(top, top + kSoftmaxLanes);
}

}  // namespace

ISE_CLONES SoftmaxSums softmax_sums(const SoftmaxRow<float>& row, float* e, int64_t begin, int64_t end) {
  return e ? sums<true>(row, e, begin, end) : sums<false>(row, e, begin, end);
}
SoftmaxSums softmax_sums(const SoftmaxRow<double>& row, double* e, int64_t begin, int64_t end) {
  return e ? sums<true>(row, e, begin, end) : sums<false>(row, e, begin, end);
}

ISE_CLONES float softmax_top(const SoftmaxRow<float>& row, int64_t begin, int64_t end) {
  return largest(row, begin, end);
}
double softmax_top(const SoftmaxRow<double>& row, int64_t begin, int64_t end) {
  return largest(row, begin, end);
}

}  // namespace ise_fast
