#include "timeline.h"

#include <algorithm>

namespace ptx {
namespace {

// Clocks of an H100, from published measurements of this and earlier generations, rounded.
struct Cost {
  std::uint64_t latency;  // until the result can be used
  std::uint64_t pipe;     // until the pipe takes the next instruction of a warp
};

Cost cost_of(Kind kind) {
  switch (kind) {
    case Kind::kMove:
    case Kind::kParameter:
      return {0, 0};  // ptxas makes registers of them
    case Kind::kFloat32:
    case Kind::kInteger32:
      return {4, 1};
    case Kind::kPredicate:
      return {6, 1};
    case Kind::kInteger64:
      return {8, 2};
    case Kind::kFloat64:
      return {8, 2};
    case Kind::kConvert:
      return {8, 2};
    case Kind::kConvert64:
      return {12, 8};
    case Kind::kSpecial:  // and the following: what ptxas makes a sequence or a subroutine of
      return {40, 8};
    case Kind::kSpecial64:
      return {160, 40};
    case Kind::kDivide:
      return {100, 32};
    case Kind::kDivide64:
      return {350, 100};
    case Kind::kCollective:
      return {24, 2};
    default:
      return {0, 1};
  }
}

constexpr std::uint64_t kAnswer[] = {29, 40, 265, 480};  // by Level
constexpr std::uint64_t kBranch = 8, kBarrier = 24;

bool is_load(Kind kind) {
  return kind == Kind::kLoadGlobal || kind == Kind::kLoadShared;
}
bool is_shared(Kind kind) {
  return kind >= Kind::kLoadShared && kind <= Kind::kAtomicShared;
}
bool is_access(Kind kind) {
  return kind >= Kind::kLoadGlobal && kind <= Kind::kAtomicShared;
}

}  // namespace

void Timeline::start(int registers) {
  begin_ = last_ = number_ = stored_[0] = stored_[1] = 0;
  busy_ = {};
  ready_.assign(static_cast<std::size_t>(registers), 0);
}

void Timeline::answered(Level level, std::uint64_t passes) {
  answer_ = std::max(answer_, kAnswer[static_cast<int>(level)]);
  passes_ = std::max(passes_, passes);
}

void Timeline::issue(const Instruction& in) {
  const Cost cost = cost_of(in.kind);
  std::uint64_t at = begin_, latency = cost.latency, pipe = cost.pipe;
  for (const int from : in.from) {
    if (from >= 0) at = std::max(at, ready_[from]);
  }
  if (in.guard >= 0) at = std::max(at, ready_[in.guard]);
  if (is_access(in.kind)) {
    std::uint64_t& stored = stored_[is_shared(in.kind)];
    if (!in.constant) at = std::max(at, stored);
    latency = answer_ + passes_ - 1;
    pipe = passes_;
    answer_ = 0, passes_ = 1;
    if (!is_load(in.kind)) stored = at;
  }
  if (pipe > 0) {
    std::uint64_t& busy = busy_[static_cast<int>(in.kind)];
    at = std::max({at, busy, begin_ + number_++});
    busy = at + pipe;
    last_ = std::max(last_, at);
  }
  for (const int to : in.to) {
    if (to >= 0) ready_[to] = at + latency;
  }
  if (in.control == Control::kBranch || in.control == Control::kReturn) branch();
}

void Timeline::branch() {
  begin_ = last_ += kBranch;
  number_ = stored_[0] = stored_[1] = 0;
}

void Timeline::resume(std::uint64_t barrier) {
  begin_ = last_ = barrier + kBarrier;
  number_ = stored_[0] = stored_[1] = 0;
}

}  // namespace ptx
