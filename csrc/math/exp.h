// exp whose bits the CPU and the GPU agree on; the libraries' versions differ in the last place.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "host_device.h"

namespace ise_fast {

// 2^n for -126 <= n <= 127.
ISE_HOST_DEVICE float power_of_two(int n) {
  const uint32_t bits = static_cast<uint32_t>(n + 127) << 23;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

// exp(t) for t <= 0 (-infinity included), within 1.1 units in the last place, subnormal results included.
//
// t = n ln 2 + r with |r| <= ln 2 / 2 (ln 2 in two pieces, the first short enough for n times it to be exact), the
// Taylor polynomial of degree 7 in r, then 2^n in two factors so that a subnormal result is rounded once.
ISE_HOST_DEVICE float exp_nonpositive(float t) {
  if (t < -104.0f) return 0.0f;  // below half the smallest subnormal
  const float n = rintf(t * 1.44269504f);
  float r = fmaf(n, -0.693359375f, t);
  r = fmaf(n, 2.12194440e-4f, r);
  float p = 1.0f / 5040.0f;
  p = fmaf(p, r, 1.0f / 720.0f);
  p = fmaf(p, r, 1.0f / 120.0f);
  p = fmaf(p, r, 1.0f / 24.0f);
  p = fmaf(p, r, 1.0f / 6.0f);
  p = fmaf(p, r, 0.5f);
  p = fmaf(p, r * r, r);
  const int half = static_cast<int>(n) / 2;
  return (1.0f + p) * power_of_two(half) * power_of_two(static_cast<int>(n) - half);
}

}  // namespace ise_fast
