// Lock-free union-find: every tree's root is its smallest member, whatever the order of the unions.
#pragma once

#include <cstdint>

#include "launch.h"

namespace ise_fast {

// The root of i, halving the path on the way. A stale parent is still an ancestor, so relaxed reads are enough.
__device__ inline int32_t find_root(int32_t* parent, int32_t i) {
  for (int32_t up = load_relaxed(parent + i); up != i;) {
    const int32_t above = load_relaxed(parent + up);
    store_relaxed(parent + i, above);
    i = up;
    up = above;
  }
  return i;
}

// Hangs the larger of the two roots below the smaller; retried if somebody else has moved it meanwhile.
__device__ inline void unite(int32_t* parent, int32_t a, int32_t b) {
  while (true) {
    a = find_root(parent, a);
    b = find_root(parent, b);
    if (a == b) return;
    const int32_t low = a < b ? a : b, high = a < b ? b : a;
    if (atomicCAS(parent + high, high, low) == high) return;
  }
}

}  // namespace ise_fast
