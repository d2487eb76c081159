// __half and __nv_bfloat16 with CUDA's names, as far as kernels that only store them need. Conversions are explicit,
// so that every computation is visibly in float. Conversions round to nearest, ties to even, as the hardware does.
#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include "types.h"

namespace simt {

// A float rounded to `kMantissa` bits of mantissa, smallest normal exponent `kLowest`, largest finite value `kMax`.
template <int kMantissa, int kLowest>
float round_to_format(float value, float max) {
  if (!std::isfinite(value) || value == 0) return value;
  int exponent;
  std::frexp(value, &exponent);  // value = m * 2^exponent, 0.5 <= |m| < 1
  const int unit = std::max(exponent - 1, kLowest) - kMantissa;
  const float rounded = std::ldexp(static_cast<float>(std::nearbyint(std::ldexp(double{value}, -unit))), unit);
  return std::fabs(rounded) > max ? std::copysign(INFINITY, value) : rounded;
}

}  // namespace simt

struct __nv_bfloat16 {
  std::uint16_t bits;
  __nv_bfloat16() = default;  // trivial, so that it can live in shared memory
  explicit __nv_bfloat16(float value)
      : bits(std::isnan(value)
                 ? 0x7fff
                 : std::bit_cast<std::uint32_t>(simt::round_to_format<7, -126>(value, 0x1.fep127f)) >> 16) {}
  explicit operator float() const { return std::bit_cast<float>(std::uint32_t{bits} << 16); }
};

struct __half {
  std::uint16_t bits;
  __half() = default;
  explicit __half(float value) {
    if (std::isnan(value)) {
      bits = 0x7fff;
      return;
    }
    const float rounded = simt::round_to_format<10, -14>(value, 65504.0f);
    const std::uint32_t word = std::bit_cast<std::uint32_t>(rounded), sign = word >> 16 & 0x8000u;
    if (std::isinf(rounded)) {
      bits = static_cast<std::uint16_t>(sign | 0x7c00u);
    } else if (std::fabs(rounded) < 0x1p-14f) {  // subnormal: a multiple of 2^-24
      bits = static_cast<std::uint16_t>(sign | static_cast<std::uint32_t>(std::fabs(rounded) * 0x1p24f));
    } else {
      bits = static_cast<std::uint16_t>(sign | (((word & 0x7fffffffu) - (112u << 23)) >> 13));
    }
  }
  explicit operator float() const {
    const std::uint32_t sign = (bits & 0x8000u) << 16u, exponent = bits >> 10 & 31u, mantissa = bits & 0x3ffu;
    if (exponent == 0) return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(mantissa * 0x1p-24f));
    return std::bit_cast<float>(sign | (exponent == 31 ? 0xffu : exponent + 112u) << 23 | mantissa << 13);
  }
};

struct alignas(4) __half2 {
  __half x, y;
};
struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
};
using half = __half;
using half2 = __half2;
using nv_bfloat16 = __nv_bfloat16;

inline float __half2float(__half x) {
  return static_cast<float>(x);
}
inline __half __float2half_rn(float x) {
  return __half(x);
}
inline float2 __half22float2(__half2 v) {
  return {static_cast<float>(v.x), static_cast<float>(v.y)};
}
inline __half2 __floats2half2_rn(float x, float y) {
  return {__half(x), __half(y)};
}
inline float __bfloat162float(__nv_bfloat16 x) {
  return static_cast<float>(x);
}
inline __nv_bfloat16 __float2bfloat16_rn(float x) {
  return __nv_bfloat16(x);
}
inline float2 __bfloat1622float2(__nv_bfloat162 v) {
  return {static_cast<float>(v.x), static_cast<float>(v.y)};
}
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) {
  return {__nv_bfloat16(x), __nv_bfloat16(y)};
}
