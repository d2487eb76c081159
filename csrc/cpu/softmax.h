// The softmax rows of the contrastive loss, without ever storing a probability of the own class.
//
// A row r of sample i has cosines cos_c = (z_c + lambda (g_m,c - g_o,c)) / n with the centroids, logits cos_c / tau.
// With everything taken relative to the own class,
//
//     e_c = exp((cos_c - cos_o) / tau - top),  S = sum of e_c and T = sum of e_c (cos_c - cos_o) over c != o,
//     loss = log(1 + S),  p_c = e_c / (1 + S),  p_o - 1 = -S / (1 + S),  sum of (P - Y)_c cos_c = T / (1 + S)
//
// for top = 0: exact also where p_o rounds to 1. Where exp could overflow, `top` is the largest logit of the row and
// the 1 of the own class becomes exp(-top).
#pragma once

#include <cstdint>

namespace ise_fast {

template <class T>
struct SoftmaxRow {
  const T* z;       // inner products of the feature with the centroids
  const T* gram_m;  // rows of the Gram matrix; for the feature itself z and z with degree 0
  const T* gram_o;
  T degree;
  T inverse_norm;  // 1 / n
  T own;           // cos_o
  T inverse_tau;
  T top;
};

struct SoftmaxSums {
  double s, t;
};

// Sums over columns are made in so many lanes, and in pieces of so many columns.
inline constexpr int kSoftmaxLanes = 16;
inline constexpr int64_t kSoftmaxPiece = 1024;

// S and T over columns [begin, end). e: null or [end - begin], receives e_c.
SoftmaxSums softmax_sums(const SoftmaxRow<float>& row, float* e, int64_t begin, int64_t end);
SoftmaxSums softmax_sums(const SoftmaxRow<double>& row, double* e, int64_t begin, int64_t end);

// Largest logit relative to the own one over [begin, end), at least `top`.
float softmax_top(const SoftmaxRow<float>& row, int64_t begin, int64_t end);
double softmax_top(const SoftmaxRow<double>& row, int64_t begin, int64_t end);

}  // namespace ise_fast
