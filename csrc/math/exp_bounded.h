// exp for arguments that stay away from overflow, without a branch and without fmaf, so that compilers vectorise it for
// every instruction set with the same bits.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "host_device.h"

namespace ise_fast {

// Within 2 units in the last place for -87 <= t <= 88; arguments outside are moved to the nearer end.
ISE_HOST_DEVICE float exp_bounded(float t) {
  t = t < -87.0f ? -87.0f : t;
  t = t > 88.0f ? 88.0f : t;
  // Adding 1.5 x 2^23 rounds to an integer, which then stands in the low bits.
  const float shifted = t * 1.44269504f + 12582912.0f;
  const float n = shifted - 12582912.0f;
  const float r = (t - n * 0.693359375f) - n * -2.12194440e-4f;  // the first product is exact
  float p = 1.0f / 5040.0f;
  p = p * r + 1.0f / 720.0f;
  p = p * r + 1.0f / 120.0f;
  p = p * r + 1.0f / 24.0f;
  p = p * r + 1.0f / 6.0f;
  p = p * r + 0.5f;
  p = p * (r * r) + r;
  uint32_t bits;
  memcpy(&bits, &shifted, sizeof bits);
  bits = (bits << 23) + 0x3f800000u;
  float power;
  memcpy(&power, &bits, sizeof power);
  return (1.0f + p) * power;
}

// Whether the softmax of rows can do without their largest logits: cosines are at most 2.002 times the longest centroid
// apart, and up to 64 terms e and e (cosine - own) are added in float32: 64 x 4 e^83 and their quotients stay in its
// range.
ISE_HOST_DEVICE bool exponents_are_bounded(double longest, double tau) {
  return 2.002 * longest <= 4 && 2.002 * longest / tau <= 83;
}

ISE_HOST_DEVICE double exp_bounded(double t) {
  return exp(t);
}

}  // namespace ise_fast
