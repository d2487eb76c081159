// What lanes of a warp tell each other: shuffles, votes, reductions, matches. `active`: the lanes that take part.
#include <cstring>

#include "machine.h"

namespace ptx {
namespace {

enum Shuffle : std::uint8_t { kIndex, kUp, kDown, kButterfly };

void shuffle(Warp& warp, const Instruction& in, Mask active) {
  std::uint64_t value[kWarpSize], *to = warp.lanes(in.to[0]);
  std::memcpy(value, warp.lanes(in.from[0]), sizeof value);
  const std::uint64_t *by = warp.lanes(in.from[1]), *shape = warp.lanes(in.from[2]);
  for_lanes(active, [&](int lane) {
    const int amount = static_cast<int>(by[lane] & 31), clamp = static_cast<int>(shape[lane] & 31);
    const int segment = static_cast<int>(shape[lane] >> 8 & 31);
    const int first = lane & segment, last = first | (clamp & ~segment);
    int from = lane;
    bool inside = false;
    switch (in.operation) {
      case kUp:
        from = lane - amount, inside = from >= last;
        break;
      case kDown:
        from = lane + amount, inside = from <= last;
        break;
      case kButterfly:
        from = lane ^ amount, inside = from <= last;
        break;
      default:
        from = first | (amount & ~segment), inside = from <= last;
    }
    if (!inside) from = lane;
    if (!(active >> from & 1))
      warp.fail(in, "wrong mask: it reads lane " + std::to_string(from) + ", which does not take part");
    to[lane] = value[from] & 0xffffffff;
    if (in.to[1] >= 0) warp.lanes(in.to[1])[lane] = inside;
  });
}

enum Vote : std::uint8_t { kBallot, kAny, kAll, kUniform };

void vote(Warp& warp, const Instruction& in, Mask active) {
  const std::uint64_t* said = warp.lanes(in.from[0]);
  Mask yes = 0;
  for_lanes(active, [&](int lane) { yes |= (said[lane] != 0) != in.negated ? Mask{1} << lane : 0; });
  const std::uint64_t result = in.operation == kBallot ? yes
                               : in.operation == kAny  ? yes != 0
                               : in.operation == kAll  ? yes == active
                                                       : yes == active || yes == 0;
  for_lanes(active, [&](int lane) { warp.lanes(in.to[0])[lane] = result; });
}

enum Reduction : std::uint8_t { kAdd, kMin, kMax, kAnd, kOr, kXor };

struct Reduce {
  template <class T>
  static void run(Warp& warp, const Instruction& in, Mask active) {
    const std::uint64_t* from = warp.lanes(in.from[0]);
    T sum = get<T>(from[std::countr_zero(active)]);
    for_lanes(active & (active - 1), [&](int lane) {
      const T value = get<T>(from[lane]);
      switch (in.operation) {
        case kAdd:
          sum = static_cast<T>(static_cast<std::uint64_t>(sum) + static_cast<std::uint64_t>(value));
          break;
        case kMin:
          sum = value < sum ? value : sum;
          break;
        case kMax:
          sum = sum < value ? value : sum;
          break;
        case kAnd:
          sum &= value;
          break;
        case kOr:
          sum |= value;
          break;
        default:
          sum ^= value;
      }
    });
    for_lanes(active, [&](int lane) { warp.lanes(in.to[0])[lane] = put<T>(sum); });
  }
};

struct Match {
  template <class T>
  static void run(Warp& warp, const Instruction& in, Mask active) {
    std::uint64_t value[kWarpSize];
    std::memcpy(value, warp.lanes(in.from[0]), sizeof value);
    for_lanes(active, [&](int lane) {
      Mask equal = 0;
      for_lanes(active,
                [&](int other) { equal |= get<T>(value[other]) == get<T>(value[lane]) ? Mask{1} << other : 0; });
      warp.lanes(in.to[0])[lane] = equal;
    });
  }
};

void active_lanes(Warp& warp, const Instruction& in, Mask active) {
  for_lanes(active, [&](int lane) { warp.lanes(in.to[0])[lane] = active; });
}

}  // namespace

Instruction::Execute collective(const Mnemonic& mnemonic, Instruction& in) {
  const std::string& name = mnemonic.name;
  if (name == "activemask") return &active_lanes;
  if ((name == "bar" || name == "barrier") && !mnemonic.has("warp")) {
    in.control = Control::kBarrier;
    in.operation = mnemonic.has("or") ? kOr : mnemonic.has("and") ? kAnd : kAdd;
    return nullptr;
  }
  if (name != "bar" && name != "shfl" && name != "vote" && name != "redux" && name != "match") return nullptr;
  in.control = Control::kCollective;
  if (name == "bar") return [](Warp&, const Instruction&, Mask) {};
  if (name == "shfl") {
    in.operation = mnemonic.has("up") ? kUp : mnemonic.has("down") ? kDown : mnemonic.has("bfly") ? kButterfly : kIndex;
    return &shuffle;
  }
  if (name == "vote") {
    in.operation = mnemonic.has("any") ? kAny : mnemonic.has("all") ? kAll : mnemonic.has("uni") ? kUniform : kBallot;
    return &vote;
  }
  if (name == "match") return mnemonic.has("any") ? for_integer<Match>(in.type) : nullptr;
  in.operation = mnemonic.has("min")   ? kMin
                 : mnemonic.has("max") ? kMax
                 : mnemonic.has("and") ? kAnd
                 : mnemonic.has("or")  ? kOr
                 : mnemonic.has("xor") ? kXor
                                       : kAdd;
  return for_integer<Reduce>(in.type);
}

}  // namespace ptx
