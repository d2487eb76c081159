// cvt: between integers, floats and half floats, with the rounding that it names.
#include <cmath>
#include <cstring>
#include <limits>

#include "machine.h"

namespace ptx {
namespace {

enum Rounding : std::uint8_t { kNone, kNearest, kToZero, kDown, kUp };

double rounded(double value, int rounding) {
  switch (rounding) {
    case kNearest:
      return std::nearbyint(value);
    case kToZero:
      return std::trunc(value);
    case kDown:
      return std::floor(value);
    case kUp:
      return std::ceil(value);
    default:
      return value;
  }
}

// Out of range: the nearest integer that the type has; NaN: 0.
template <class To>
To saturated(double value) {
  if (value != value) return 0;
  if (value <= static_cast<double>(std::numeric_limits<To>::min())) return std::numeric_limits<To>::min();
  if (value >= static_cast<double>(std::numeric_limits<To>::max())) return std::numeric_limits<To>::max();
  return static_cast<To>(value);
}

std::uint16_t half_bits(float value) {
  if (value != value) return 0x7fff;
  const auto half = static_cast<_Float16>(value);
  std::uint16_t bits;
  std::memcpy(&bits, &half, sizeof bits);
  return bits;
}
std::uint16_t bfloat_bits(float value) {
  if (value != value) return 0x7fff;
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
float of_half(std::uint16_t bits) {
  _Float16 half;
  std::memcpy(&half, &bits, sizeof half);
  return static_cast<float>(half);
}

template <class From, class To>
void numbers(Warp& warp, const Instruction& in, Mask active) {
  std::uint64_t* to = warp.lanes(in.to[0]);
  const std::uint64_t* a = warp.lanes(in.from[0]);
  for_lanes(active, [&](int lane) {
    const From value = get<From>(a[lane]);
    if constexpr (std::is_floating_point_v<To>) {
      const auto whole = std::is_floating_point_v<From> && in.operation != kNone;
      to[lane] =
          put<To>(whole ? static_cast<To>(rounded(static_cast<double>(value), in.operation)) : static_cast<To>(value));
    } else if constexpr (std::is_floating_point_v<From>) {
      to[lane] = put<To>(saturated<To>(rounded(static_cast<double>(value), in.operation))) & in.mask;
    } else {  // a register wider than its value is filled with the sign
      to[lane] = static_cast<std::uint64_t>(static_cast<std::int64_t>(static_cast<To>(value))) & in.mask;
    }
  });
}

template <class From>
struct To {
  template <class T>
  static void run(Warp& warp, const Instruction& in, Mask active) {
    numbers<From, T>(warp, in, active);
  }
};

template <std::uint16_t (*kBits)(float)>
void to_half(Warp& warp, const Instruction& in, Mask active) {
  std::uint64_t* to = warp.lanes(in.to[0]);
  const std::uint64_t* a = warp.lanes(in.from[0]);
  for_lanes(active, [&](int lane) { to[lane] = kBits(get<float>(a[lane])); });
}
template <bool kBrain>
void from_half(Warp& warp, const Instruction& in, Mask active) {
  std::uint64_t* to = warp.lanes(in.to[0]);
  const std::uint64_t* a = warp.lanes(in.from[0]);
  for_lanes(active, [&](int lane) {
    const auto bits = static_cast<std::uint16_t>(a[lane]);
    to[lane] = put<float>(kBrain ? std::bit_cast<float>(std::uint32_t{bits} << 16) : of_half(bits));
  });
}

}  // namespace

Instruction::Execute conversion(const Mnemonic& mnemonic, Instruction& in) {
  in.operation = mnemonic.has("rni")   ? kNearest
                 : mnemonic.has("rzi") ? kToZero
                 : mnemonic.has("rmi") ? kDown
                 : mnemonic.has("rpi") ? kUp
                                       : kNone;
  const auto is_half = [](Type type) { return type == Type::kF16 || type == Type::kBF16; };
  if (mnemonic.has("rz") || mnemonic.has("rm") || mnemonic.has("rp")) return nullptr;
  if (is_half(in.type)) {
    if (in.source != Type::kF32) return nullptr;
    return in.type == Type::kF16 ? &to_half<half_bits> : &to_half<bfloat_bits>;
  }
  if (is_half(in.source)) {
    if (in.type != Type::kF32) return nullptr;
    return in.source == Type::kF16 ? &from_half<false> : &from_half<true>;
  }
  switch (in.source) {
    case Type::kU8:
      return for_number<To<std::uint8_t>>(in.type);
    case Type::kS8:
      return for_number<To<std::int8_t>>(in.type);
    case Type::kU16:
      return for_number<To<std::uint16_t>>(in.type);
    case Type::kS16:
      return for_number<To<std::int16_t>>(in.type);
    case Type::kU32:
      return for_number<To<std::uint32_t>>(in.type);
    case Type::kS32:
      return for_number<To<std::int32_t>>(in.type);
    case Type::kU64:
      return for_number<To<std::uint64_t>>(in.type);
    case Type::kS64:
      return for_number<To<std::int64_t>>(in.type);
    case Type::kF32:
      return for_number<To<float>>(in.type);
    case Type::kF64:
      return for_number<To<double>>(in.type);
    default:
      return nullptr;
  }
}

}  // namespace ptx
