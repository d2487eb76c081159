// What the arithmetic instructions compute, lane by lane. Rounding is to nearest even, as nvcc asks for without fast
// math; a fused multiply-add rounds once, here as there.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <type_traits>

#include "machine.h"

namespace ptx {
namespace {

using Execute = Instruction::Execute;

template <class T>
constexpr bool is_float = std::is_floating_point_v<T>;
template <class T>
using Unsigned = std::make_unsigned_t<T>;

// Integers wrap around: computed without sign.
template <class T, class Operation>
T wrapping(T a, T b, Operation operation) {
  return static_cast<T>(operation(static_cast<std::uint64_t>(a), static_cast<std::uint64_t>(b)));
}

struct Add {
  template <class T>
  static T of(T a, T b) {
    if constexpr (is_float<T>)
      return a + b;
    else
      return wrapping(a, b, [](auto x, auto y) { return x + y; });
  }
};
struct Subtract {
  template <class T>
  static T of(T a, T b) {
    if constexpr (is_float<T>)
      return a - b;
    else
      return wrapping(a, b, [](auto x, auto y) { return x - y; });
  }
};
struct Multiply {
  template <class T>
  static T of(T a, T b) {
    if constexpr (is_float<T>)
      return a * b;
    else
      return wrapping(a, b, [](auto x, auto y) { return x * y; });
  }
};
struct MultiplyHigh {
  template <class T>
  static T of(T a, T b) {
    return static_cast<T>((static_cast<__int128>(a) * static_cast<__int128>(b)) >> (8 * sizeof(T)));
  }
};
struct Divide {
  template <class T>
  static T of(T a, T b) {
    if constexpr (is_float<T>)
      return a / b;
    else if (b == 0)
      return static_cast<T>(-1);
    else if constexpr (std::is_signed_v<T>)
      return b == -1 ? Subtract::of(T{0}, a) : static_cast<T>(a / b);
    else
      return static_cast<T>(a / b);
  }
};
struct Remainder {
  template <class T>
  static T of(T a, T b) {
    if (b == 0) return a;
    if constexpr (std::is_signed_v<T>) {
      if (b == -1) return 0;
    }
    return static_cast<T>(a % b);
  }
};
struct Minimum {
  template <class T>
  static T of(T a, T b) {
    if constexpr (is_float<T>)
      return std::fmin(a, b);
    else
      return b < a ? b : a;
  }
};
struct Maximum {
  template <class T>
  static T of(T a, T b) {
    if constexpr (is_float<T>)
      return std::fmax(a, b);
    else
      return a < b ? b : a;
  }
};
struct And {
  template <class T>
  static T of(T a, T b) {
    return static_cast<T>(a & b);
  }
};
struct Or {
  template <class T>
  static T of(T a, T b) {
    return static_cast<T>(a | b);
  }
};
struct Xor {
  template <class T>
  static T of(T a, T b) {
    return static_cast<T>(a ^ b);
  }
};
struct CopySign {  // PTX: the sign of a on the value of b
  template <class T>
  static T of(T a, T b) {
    return std::copysign(b, a);
  }
};

template <class Operation>
struct Binary {
  template <class T>
  static void run(Warp& warp, const Instruction& in, Mask active) {
    std::uint64_t* to = warp.lanes(in.to[0]);
    const std::uint64_t *a = warp.lanes(in.from[0]), *b = warp.lanes(in.from[1]);
    for_lanes(active, [&](int lane) { to[lane] = put<T>(Operation::of(get<T>(a[lane]), get<T>(b[lane]))); });
  }
};

// The amount is 32 bits whatever is shifted, and may exceed the width.
struct ShiftLeft {
  template <class T>
  static void run(Warp& warp, const Instruction& in, Mask active) {
    std::uint64_t* to = warp.lanes(in.to[0]);
    const std::uint64_t *a = warp.lanes(in.from[0]), *by = warp.lanes(in.from[1]);
    for_lanes(active, [&](int lane) {
      const auto amount = static_cast<std::uint32_t>(by[lane]);
      to[lane] = put<T>(amount >= 8 * sizeof(T) ? T{0} : static_cast<T>(a[lane] << amount));
    });
  }
};
struct ShiftRight {
  template <class T>
  static void run(Warp& warp, const Instruction& in, Mask active) {
    std::uint64_t* to = warp.lanes(in.to[0]);
    const std::uint64_t *a = warp.lanes(in.from[0]), *by = warp.lanes(in.from[1]);
    for_lanes(active, [&](int lane) {
      const auto amount = static_cast<std::uint32_t>(by[lane]);
      const T value = get<T>(a[lane]), gone = value < 0 ? static_cast<T>(-1) : T{0};
      to[lane] = put<T>(amount >= 8 * sizeof(T) ? gone : static_cast<T>(value >> amount));
    });
  }
};

struct Negate {
  template <class T>
  static T of(T a) {
    if constexpr (is_float<T>)
      return -a;
    else
      return static_cast<T>(Unsigned<T>{0} - static_cast<Unsigned<T>>(a));
  }
};
struct Absolute {
  template <class T>
  static T of(T a) {
    if constexpr (is_float<T>)
      return std::fabs(a);
    else
      return a < 0 ? Negate::of(a) : a;
  }
};
struct SquareRoot {
  template <class T>
  static T of(T a) {
    return std::sqrt(a);
  }
};
struct Reciprocal {
  template <class T>
  static T of(T a) {
    return T{1} / a;
  }
};
// The approximations of the hardware are modelled by the rounded result. Of float64 it gives the upper word only: a
// seed, which the code that nvcc puts around it refines.
struct ReciprocalSeed {
  template <class T>
  static T of(T a) {
    if constexpr (sizeof(T) == 4) return 1 / a;
    constexpr std::uint64_t kUpper = ~std::uint64_t{0} << 32;
    const auto flushed = [](std::uint64_t bits) {
      const double value = std::bit_cast<double>(bits & kUpper);
      return std::fpclassify(value) == FP_SUBNORMAL ? std::copysign(0.0, value) : value;
    };
    const double inverse = 1 / flushed(std::bit_cast<std::uint64_t>(static_cast<double>(a)));
    return static_cast<T>(flushed(std::bit_cast<std::uint64_t>(inverse)));
  }
};
struct ReciprocalRoot {
  template <class T>
  static T of(T a) {
    return static_cast<T>(1 / std::sqrt(static_cast<double>(a)));
  }
};
struct Exponential2 {
  template <class T>
  static T of(T a) {
    return std::exp2(a);
  }
};
struct Logarithm2 {
  template <class T>
  static T of(T a) {
    return std::log2(a);
  }
};
struct Not {
  template <class T>
  static T of(T a) {
    return static_cast<T>(~a);
  }
};
struct ReverseBits {
  template <class T>
  static T of(T a) {
    T out = 0;
    for (unsigned i = 0; i < 8 * sizeof(T); ++i) out = static_cast<T>(out << 1 | (a >> i & 1));
    return out;
  }
};

template <class Operation>
struct Unary {
  template <class T>
  static void run(Warp& warp, const Instruction& in, Mask active) {
    std::uint64_t* to = warp.lanes(in.to[0]);
    const std::uint64_t* a = warp.lanes(in.from[0]);
    for_lanes(active, [&](int lane) { to[lane] = put<T>(Operation::of(get<T>(a[lane]))); });
  }
};

struct CountBits {
  template <class T>
  static void run(Warp& warp, const Instruction& in, Mask active) {
    std::uint64_t* to = warp.lanes(in.to[0]);
    const std::uint64_t* a = warp.lanes(in.from[0]);
    for_lanes(active, [&](int lane) { to[lane] = std::popcount(get<Unsigned<T>>(a[lane])); });
  }
};
struct LeadingZeros {
  template <class T>
  static void run(Warp& warp, const Instruction& in, Mask active) {
    std::uint64_t* to = warp.lanes(in.to[0]);
    const std::uint64_t* a = warp.lanes(in.from[0]);
    for_lanes(active, [&](int lane) { to[lane] = std::countl_zero(get<Unsigned<T>>(a[lane])); });
  }
};
// The highest bit that differs from the sign; operation 1: how far it must be shifted to the top.
struct FindHighest {
  template <class T>
  static void run(Warp& warp, const Instruction& in, Mask active) {
    std::uint64_t* to = warp.lanes(in.to[0]);
    const std::uint64_t* a = warp.lanes(in.from[0]);
    for_lanes(active, [&](int lane) {
      const T value = get<T>(a[lane]);
      const auto bits = static_cast<Unsigned<T>>(value < 0 ? ~value : value);
      const int zeros = std::countl_zero(bits), top = static_cast<int>(8 * sizeof(T)) - 1;
      to[lane] = bits == 0 ? 0xffffffffu : static_cast<std::uint32_t>(in.operation ? zeros : top - zeros);
    });
  }
};

struct MultiplyAdd {
  template <class T>
  static void run(Warp& warp, const Instruction& in, Mask active) {
    std::uint64_t* to = warp.lanes(in.to[0]);
    const std::uint64_t *a = warp.lanes(in.from[0]), *b = warp.lanes(in.from[1]), *c = warp.lanes(in.from[2]);
    for_lanes(active, [&](int lane) {
      const T x = get<T>(a[lane]), y = get<T>(b[lane]), z = get<T>(c[lane]);
      if constexpr (is_float<T>)
        to[lane] = put<T>(std::fma(x, y, z));
      else
        to[lane] = put<T>(Add::of(Multiply::of(x, y), z));
    });
  }
};
// The product has twice the width of its factors; mad adds to it.
template <bool kAdds>
struct MultiplyWide {
  template <class T>
  static void run(Warp& warp, const Instruction& in, Mask active) {
    using Wide = std::conditional_t<std::is_signed_v<T>, std::int64_t, std::uint64_t>;
    std::uint64_t* to = warp.lanes(in.to[0]);
    const std::uint64_t *a = warp.lanes(in.from[0]), *b = warp.lanes(in.from[1]);
    const std::uint64_t* c = kAdds ? warp.lanes(in.from[2]) : nullptr;
    const std::uint64_t mask = in.mask;
    for_lanes(active, [&](int lane) {
      const auto product = static_cast<std::uint64_t>(Wide{get<T>(a[lane])} * Wide{get<T>(b[lane])});
      to[lane] = (product + (kAdds ? c[lane] : 0)) & mask;
    });
  }
};

enum Comparison : std::uint8_t {
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kOrdered,
  kUnordered,
  kOrUnordered = 16
};
const std::map<std::string, int> kComparisons = {
    {"eq", kEqual},
    {"ne", kNotEqual},
    {"lt", kLess},
    {"le", kLessEqual},
    {"gt", kGreater},
    {"ge", kGreaterEqual},
    {"lo", kLess},
    {"ls", kLessEqual},
    {"hi", kGreater},
    {"hs", kGreaterEqual},
    {"num", kOrdered},
    {"nan", kUnordered},
    {"equ", kEqual | kOrUnordered},
    {"neu", kNotEqual | kOrUnordered},
    {"ltu", kLess | kOrUnordered},
    {"leu", kLessEqual | kOrUnordered},
    {"gtu", kGreater | kOrUnordered},
    {"geu", kGreaterEqual | kOrUnordered},
};

template <class T>
bool compare(int comparison, T a, T b) {
  const bool unordered = a != a || b != b;
  if (unordered && comparison != kOrdered && comparison != kUnordered) return (comparison & kOrUnordered) != 0;
  switch (comparison & ~kOrUnordered) {
    case kEqual:
      return a == b;
    case kNotEqual:
      return a != b;
    case kLess:
      return a < b;
    case kLessEqual:
      return a <= b;
    case kGreater:
      return a > b;
    case kGreaterEqual:
      return a >= b;
    case kOrdered:
      return !unordered;
    default:
      return unordered;
  }
}

enum Combine : std::uint8_t { kAlone, kWithAnd, kWithOr, kWithXor };

struct Compare {
  template <class T>
  static void run(Warp& warp, const Instruction& in, Mask active) {
    std::uint64_t *to = warp.lanes(in.to[0]), *inverse = in.to[1] >= 0 ? warp.lanes(in.to[1]) : nullptr;
    const std::uint64_t *a = warp.lanes(in.from[0]), *b = warp.lanes(in.from[1]);
    const std::uint64_t* other = in.combine == kAlone ? nullptr : warp.lanes(in.from[2]);
    for_lanes(active, [&](int lane) {
      const bool result = compare(in.operation, get<T>(a[lane]), get<T>(b[lane]));
      const bool joined = other && (other[lane] != 0) != in.negated;
      const auto combined = [&](bool value) {
        return in.combine == kWithAnd   ? value && joined
               : in.combine == kWithOr  ? value || joined
               : in.combine == kWithXor ? value != joined
                                        : value;
      };
      to[lane] = combined(result);
      if (inverse) inverse[lane] = combined(!result);
    });
  }
};

void select(Warp& warp, const Instruction& in, Mask active) {
  std::uint64_t* to = warp.lanes(in.to[0]);
  const std::uint64_t *a = warp.lanes(in.from[0]), *b = warp.lanes(in.from[1]), *which = warp.lanes(in.from[2]);
  const std::uint64_t mask = in.mask;
  for_lanes(active, [&](int lane) { to[lane] = (which[lane] ? a[lane] : b[lane]) & mask; });
}

void move(Warp& warp, const Instruction& in, Mask active) {
  std::uint64_t* to = warp.lanes(in.to[0]);
  const std::uint64_t* a = warp.lanes(in.from[0]);
  const std::uint64_t mask = in.mask;
  for_lanes(active, [&](int lane) { to[lane] = a[lane] & mask; });
}

void not_predicate(Warp& warp, const Instruction& in, Mask active) {
  std::uint64_t* to = warp.lanes(in.to[0]);
  const std::uint64_t* a = warp.lanes(in.from[0]);
  for_lanes(active, [&](int lane) { to[lane] = !a[lane]; });
}

// mov between a register and several smaller ones
void pack(Warp& warp, const Instruction& in, Mask active) {
  const int bits = 8 * bytes_of(in.type) / in.width;
  for_lanes(active, [&](int lane) {
    std::uint64_t value = 0;
    for (int i = 0; i < in.width; ++i) value |= warp.lanes(in.from[i])[lane] << bits * i;
    warp.lanes(in.to[0])[lane] = value;
  });
}
void unpack(Warp& warp, const Instruction& in, Mask active) {
  const int bits = 8 * bytes_of(in.type) / in.width;
  for_lanes(active, [&](int lane) {
    const std::uint64_t value = warp.lanes(in.from[0])[lane];
    for (int i = 0; i < in.width; ++i) {
      if (in.to[i] >= 0) warp.lanes(in.to[i])[lane] = value >> bits * i & ((std::uint64_t{1} << bits) - 1);
    }
  });
}

// An address of a space as a generic one (operation 1), or back. Global addresses are the same in both.
void convert_address(Warp& warp, const Instruction& in, Mask active) {
  const std::uint64_t base = in.space == Space::kShared ? kSharedWindow : 0;
  std::uint64_t* to = warp.lanes(in.to[0]);
  const std::uint64_t* a = warp.lanes(in.from[0]);
  for_lanes(active, [&](int lane) { to[lane] = in.operation ? a[lane] + base : a[lane] - base; });
}

struct InsertBits {
  template <class T>
  static void run(Warp& warp, const Instruction& in, Mask active) {
    constexpr std::uint32_t kBits = 8 * sizeof(T);
    for_lanes(active, [&](int lane) {
      const auto at = [&](int i) { return warp.lanes(in.from[i])[lane]; };
      const std::uint32_t position = at(2) & 0xff, length = std::min<std::uint32_t>(at(3) & 0xff, kBits);
      std::uint64_t value = at(1);
      if (position < kBits && length > 0) {
        const std::uint64_t field = (length == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << length) - 1) << position;
        value = (value & ~field) | (at(0) << position & field);
      }
      warp.lanes(in.to[0])[lane] = put<T>(static_cast<T>(value));
    });
  }
};
struct ExtractBits {
  template <class T>
  static void run(Warp& warp, const Instruction& in, Mask active) {
    constexpr std::uint32_t kBits = 8 * sizeof(T);
    for_lanes(active, [&](int lane) {
      const auto at = [&](int i) { return warp.lanes(in.from[i])[lane]; };
      const std::uint32_t position = at(1) & 0xff, length = std::min<std::uint32_t>(at(2) & 0xff, kBits);
      const T value = get<T>(at(0)), sign = value < 0 ? static_cast<T>(-1) : T{0};
      T field = position >= kBits ? sign : static_cast<T>(value >> position);
      if (length == 0)
        field = 0;
      else if (length < kBits)
        field = static_cast<T>(static_cast<T>(field << (kBits - length)) >> (kBits - length));
      warp.lanes(in.to[0])[lane] = put<T>(field);
    });
  }
};

void permute_bytes(Warp& warp, const Instruction& in, Mask active) {
  for_lanes(active, [&](int lane) {
    const auto at = [&](int i) { return warp.lanes(in.from[i])[lane]; };
    const std::uint64_t bytes = (at(0) & 0xffffffff) | at(1) << 32;
    std::uint32_t out = 0;
    for (int i = 0; i < 4; ++i) {
      const std::uint32_t which = at(2) >> 4 * i & 15;
      const std::uint32_t byte = bytes >> 8 * (which & 7) & 0xff;
      out |= (which & 8 ? (byte & 0x80 ? 0xffu : 0u) : byte) << 8 * i;
    }
    warp.lanes(in.to[0])[lane] = out;
  });
}

// Both words shifted together; operation: bit 0 left, bit 1 amounts above 32 count as 32 (else only their 5 bits).
void funnel_shift(Warp& warp, const Instruction& in, Mask active) {
  for_lanes(active, [&](int lane) {
    const auto at = [&](int i) { return warp.lanes(in.from[i])[lane]; };
    const std::uint64_t both = (at(0) & 0xffffffff) | at(1) << 32;
    const auto asked = static_cast<std::uint32_t>(at(2));
    const std::uint32_t amount = in.operation & 2 ? std::min(asked, 32u) : asked & 31;
    const std::uint64_t left = amount == 32 ? both << 32 : both << amount;
    warp.lanes(in.to[0])[lane] = static_cast<std::uint32_t>(in.operation & 1 ? left >> 32 : both >> amount);
  });
}

void three_input_logic(Warp& warp, const Instruction& in, Mask active) {
  for_lanes(active, [&](int lane) {
    const auto at = [&](int i) { return warp.lanes(in.from[i])[lane]; };
    std::uint64_t out = 0;
    for (int row = 0; row < 8; ++row) {
      if (!(at(3) >> row & 1)) continue;
      out |= (row & 4 ? at(0) : ~at(0)) & (row & 2 ? at(1) : ~at(1)) & (row & 1 ? at(2) : ~at(2));
    }
    warp.lanes(in.to[0])[lane] = static_cast<std::uint32_t>(out);
  });
}

template <class T>
Execute pick(const std::map<std::string, T>& table, const std::string& name) {
  const auto found = table.find(name);
  return found == table.end() ? nullptr : found->second;
}

Execute compare_instruction(const Mnemonic& mnemonic, Instruction& in) {
  in.operation = static_cast<std::uint8_t>(kComparisons.at(mnemonic.modifiers.at(0)));
  in.combine = mnemonic.has("and") ? kWithAnd : mnemonic.has("or") ? kWithOr : mnemonic.has("xor") ? kWithXor : kAlone;
  return for_number<Compare>(in.type);
}

// Logic on bits or on predicates: the same.
template <class Handler>
Execute for_bits(Type type) {
  return for_integer<Handler>(type == Type::kPredicate ? Type::kU8 : type);
}

}  // namespace

Execute conversion(const Mnemonic& mnemonic, Instruction& in);  // convert.cpp

Execute arithmetic(const Mnemonic& mnemonic, Instruction& in) {
  const std::string& name = mnemonic.name;
  const Type type = in.type;
  const bool wide = mnemonic.has("wide"), is_predicate = type == Type::kPredicate;
  if (mnemonic.has("cc") || mnemonic.has("sat")) return nullptr;
  if (name == "mov") return in.width == 1 ? &move : in.to[1] >= 0 ? &unpack : &pack;
  if (name == "cvta") {
    in.operation = !mnemonic.has("to");
    return in.space == Space::kLocal ? nullptr : &convert_address;
  }
  if (name == "cvt") return conversion(mnemonic, in);
  if (name == "setp") return compare_instruction(mnemonic, in);
  if (name == "selp") return &select;
  if (name == "add") return for_number<Binary<Add>>(type);
  if (name == "sub") return for_number<Binary<Subtract>>(type);
  if (name == "mul" && wide) return for_integer<MultiplyWide<false>>(type);
  if (name == "mul" && mnemonic.has("hi")) return for_integer<Binary<MultiplyHigh>>(type);
  if (name == "mul") return for_number<Binary<Multiply>>(type);
  if (name == "mad" && wide) return for_integer<MultiplyWide<true>>(type);
  if (name == "mad" && mnemonic.has("hi")) return nullptr;
  if (name == "mad" || name == "fma") return for_number<MultiplyAdd>(type);
  if (name == "div") return for_number<Binary<Divide>>(type);
  if (name == "rem") return for_integer<Binary<Remainder>>(type);
  if (name == "min") return for_number<Binary<Minimum>>(type);
  if (name == "max") return for_number<Binary<Maximum>>(type);
  if (name == "copysign") return for_float<Binary<CopySign>>(type);
  if (name == "neg") return for_number<Unary<Negate>>(type);
  if (name == "abs") return for_number<Unary<Absolute>>(type);
  if (name == "sqrt") return for_float<Unary<SquareRoot>>(type);
  if (name == "rcp")
    return mnemonic.has("approx") ? for_float<Unary<ReciprocalSeed>>(type) : for_float<Unary<Reciprocal>>(type);
  if (name == "rsqrt") return for_float<Unary<ReciprocalRoot>>(type);
  if (name == "ex2") return for_float<Unary<Exponential2>>(type);
  if (name == "lg2") return for_float<Unary<Logarithm2>>(type);
  if (name == "and") return for_bits<Binary<And>>(type);
  if (name == "or") return for_bits<Binary<Or>>(type);
  if (name == "xor") return for_bits<Binary<Xor>>(type);
  if (name == "not") return is_predicate ? &not_predicate : for_integer<Unary<Not>>(type);
  if (name == "shl") return for_integer<ShiftLeft>(type);
  if (name == "shr") return for_integer<ShiftRight>(type);
  if (name == "popc") return for_integer<CountBits>(type);
  if (name == "clz") return for_integer<LeadingZeros>(type);
  if (name == "brev") return for_integer<Unary<ReverseBits>>(type);
  if (name == "bfind") {
    in.operation = mnemonic.has("shiftamt");
    return for_integer<FindHighest>(type);
  }
  if (name == "bfi") return for_integer<InsertBits>(type);
  if (name == "bfe") return for_integer<ExtractBits>(type);
  if (name == "prmt") return &permute_bytes;
  if (name == "shf") {
    in.operation = static_cast<std::uint8_t>(mnemonic.has("l") | mnemonic.has("clamp") << 1);
    return &funnel_shift;
  }
  if (name == "lop3") return &three_input_logic;
  return nullptr;
}

}  // namespace ptx
