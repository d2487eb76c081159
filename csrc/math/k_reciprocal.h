// The rules of the k-reciprocal encoding and of the Jaccard distance (Zhong et al. 2017), shared by all back ends.
#pragma once

#include <cstdint>

#include "host_device.h"

namespace ise_fast {

// Columns of the half sets: int(np.around(k1 / 2)) + 1, at most k1. np.around rounds half to even: 5 -> 3, 7 -> 5.
ISE_HOST_DEVICE int64_t half_width(int64_t k1) {
  const int64_t floor = k1 / 2;
  const int64_t around = k1 % 2 && floor % 2 ? floor + 1 : floor;
  return around + 1 < k1 ? around + 1 : k1;
}

// H(c) joins R*(i) when more than two thirds of it lie in R(i).
ISE_HOST_DEVICE bool joins(int64_t common, int64_t size_of_half_set) {
  return 3 * common > 2 * size_of_half_set;
}

// Jaccard distance of two rows of weights that share the mass s.
ISE_HOST_DEVICE float jaccard_from_shared(float s) {
  const float d = 1.0f - s / (2.0f - s);
  return d < 0.0f ? 0.0f : d;
}

// No s below this can give a distance <= eps: saves the division for nearly all pairs. The margin covers rounding.
ISE_HOST_DEVICE float least_shared(float eps) {
  return eps < 1.0f ? 2.0f * (1.0f - eps) / (2.0f - eps) - 1e-5f : -1.0f;
}

}  // namespace ise_fast
