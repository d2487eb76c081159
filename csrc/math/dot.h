// The inner product whose bits every back end agrees on.
//
// Lane l of 32 sums the products l, l + 32, l + 64, ... in ascending order; the 32 lane sums are folded as a binary
// tree (16, 8, 4, 2, 1 apart). The product of two float32 values is exact in float64, so a fused multiply-add and a
// multiplication followed by an addition give the same bits. A CPU computes the lanes as vectors, a GPU as the threads
// of a warp; neither batch size, thread count nor tile size enters. (float64 operands are taken too: their products
// round, and the bits rest on a build without contraction.)
#pragma once

#include <cstdint>

#include "host_device.h"

namespace ise_fast {

inline constexpr int kDotLanes = 32;

// Lane sums -> the inner product. `partial` is overwritten.
ISE_HOST_DEVICE double fold_dot_lanes(double (&partial)[kDotLanes]) {
  for (int apart = kDotLanes / 2; apart > 0; apart /= 2) {
    for (int lane = 0; lane < apart; ++lane) partial[lane] += partial[lane + apart];
  }
  return partial[0];
}

// sum + a b, for numbers a of type A and b of type B. A GPU needs one instruction where the product is exact.
template <class A, class B>
ISE_HOST_DEVICE double add_product(double sum, double a, double b) {
#ifdef __CUDA_ARCH__
  if constexpr (sizeof(A) == sizeof(float) && sizeof(B) == sizeof(float)) return __fma_rn(a, b, sum);
#endif
  return sum + a * b;
}

// What lane `lane` contributes.
template <class A, class B>
ISE_HOST_DEVICE double dot_lane(const A* a, const B* b, int64_t d, int lane) {
  double sum = 0.0;
  for (int64_t i = lane; i < d; i += kDotLanes) {
    sum = add_product<A, B>(sum, static_cast<double>(a[i]), static_cast<double>(b[i]));
  }
  return sum;
}

// The whole inner product by one thread: vectorises over the lanes.
template <class A, class B>
inline double dot(const A* a, const B* b, int64_t d) {
  double partial[kDotLanes] = {};
  int64_t i = 0;
  for (; i + kDotLanes <= d; i += kDotLanes) {
    for (int lane = 0; lane < kDotLanes; ++lane) {
      partial[lane] += static_cast<double>(a[i + lane]) * static_cast<double>(b[i + lane]);
    }
  }
  for (int lane = 0; i < d; ++i, ++lane) partial[lane] += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return fold_dot_lanes(partial);
}

}  // namespace ise_fast
