// A (float, index) pair as one 64-bit integer with the same order: selection becomes a total order, whatever the
// order in which candidates arrive.
#pragma once

#include <cstdint>
#include <cstring>

#include "host_device.h"

namespace ise_fast {

inline constexpr uint64_t kWorstKey = ~uint64_t{0};

// Maps float32 to uint32 so that a < b exactly when ordered(a) < ordered(b); -0 sorts just before +0. No NaN.
ISE_HOST_DEVICE uint32_t ordered_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

ISE_HOST_DEVICE float from_ordered_bits(uint32_t ordered) {
  const uint32_t bits = ordered & 0x80000000u ? ordered & 0x7fffffffu : ~ordered;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

// Small value first, then low index.
ISE_HOST_DEVICE uint64_t ascending_key(float value, uint32_t index) {
  return static_cast<uint64_t>(ordered_bits(value)) << 32 | index;
}

// Large value first, then low index. Adding +0 turns -0 into +0: equal similarities must compare by index alone.
ISE_HOST_DEVICE uint64_t descending_key(float value, uint32_t index) {
  return static_cast<uint64_t>(~ordered_bits(value + 0.0f)) << 32 | index;
}

ISE_HOST_DEVICE uint32_t key_index(uint64_t key) {
  return static_cast<uint32_t>(key);
}
ISE_HOST_DEVICE float ascending_value(uint64_t key) {
  return from_ordered_bits(static_cast<uint32_t>(key >> 32));
}
ISE_HOST_DEVICE float descending_value(uint64_t key) {
  return from_ordered_bits(~static_cast<uint32_t>(key >> 32));
}

}  // namespace ise_fast
