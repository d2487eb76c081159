// Where threads meet: what a barrier or a warp collective does once everybody has arrived, and who is to blame when
// nobody can go on.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <stdexcept>

#include "machine.h"

namespace simt {

uint3 thread_index(unsigned linear) {
  const uint3& n = machine.block_size;
  return {linear % n.x, linear / n.x % n.y, linear / (n.x * n.y)};
}

std::string text(const uint3& v) {
  return "(" + std::to_string(v.x) + ", " + std::to_string(v.y) + ", " + std::to_string(v.z) + ")";
}

std::string text(const Where& where) {
  const char* slash = std::strrchr(where.file_name(), '/');
  return std::string(slash ? slash + 1 : where.file_name()) + ":" + std::to_string(where.line());
}

namespace {

std::string describe(unsigned t) {
  const Thread& thread = machine.thread[t];
  std::string who = "thread " + text(thread.index);
  switch (thread.state) {
    case State::kExited:
      return who + " has returned";
    case State::kAtBarrier:
      return who + " waits at " + thread.name + " (" + text(thread.where) + ")";
    default:
      char mask[16];
      std::snprintf(mask, sizeof mask, "0x%08x", thread.mask);
      return who + " waits in " + thread.name + " with mask " + mask + " (" + text(thread.where) + ")";
  }
}

[[noreturn]] void give_up(const std::string& message) {
  throw std::runtime_error(std::string(machine.kernel) + ", block " + text(machine.block) + ": " + message);
}

std::uint64_t reduce(Collective kind, std::uint64_t a, std::uint64_t b) {
  const auto u = static_cast<std::uint32_t>(a), v = static_cast<std::uint32_t>(b);
  const auto i = static_cast<std::int32_t>(a), j = static_cast<std::int32_t>(b);
  switch (kind) {
    case Collective::kAddUnsigned:
      return u + v;
    case Collective::kMinUnsigned:
      return std::min(u, v);
    case Collective::kMaxUnsigned:
      return std::max(u, v);
    case Collective::kMinSigned:
      return static_cast<std::uint32_t>(std::min(i, j));
    case Collective::kMaxSigned:
      return static_cast<std::uint32_t>(std::max(i, j));
    case Collective::kAnd:
      return u & v;
    case Collective::kOr:
      return u | v;
    default:
      return u ^ v;
  }
}

bool same_collective(const Thread& a, const Thread& b) {
  return a.mask == b.mask && (a.name == b.name || std::strcmp(a.name, b.name) == 0);
}

// All lanes of `members` have arrived at one collective: compute what each of them gets.
void complete(unsigned first, unsigned members) {
  Thread* warp = machine.thread + first;
  const Collective kind = warp[__builtin_ctz(members)].collective;
  const auto each = [&](auto&& visit) {
    for (unsigned l = 0; l < kWarp; ++l)
      if (members >> l & 1) visit(l);
  };
  if (kind == Collective::kSync) {
    std::uint32_t joined[kWarp] = {};
    each([&](unsigned l) {
      for (unsigned k = 0; k < kWarp; ++k) joined[k] = std::max(joined[k], machine.seen[first + l][k]);
      ++machine.clock[first + l];
    });
    each([&](unsigned l) { joined[l] = machine.clock[first + l]; });
    each([&](unsigned l) { std::copy(joined, joined + kWarp, machine.seen[first + l]); });
  } else if (kind == Collective::kShuffle) {
    each([&](unsigned l) {
      if (!(members >> warp[l].source & 1))
        give_up("wrong mask: " + describe(first + l) + " and reads lane " + std::to_string(warp[l].source) +
                ", which does not take part");
      warp[l].result = warp[warp[l].source].value;
    });
  } else if (kind == Collective::kBallot) {
    unsigned ballot = 0;
    each([&](unsigned l) { ballot |= (warp[l].value != 0 ? 1u : 0u) << l; });
    each([&](unsigned l) { warp[l].result = ballot; });
  } else if (kind == Collective::kMatchAny) {
    each([&](unsigned l) {
      unsigned same = 0;
      each([&](unsigned k) { same |= (warp[k].value == warp[l].value ? 1u : 0u) << k; });
      warp[l].result = same;
    });
  } else {
    const unsigned leader = __builtin_ctz(members);
    std::uint64_t total = warp[leader].value;
    each([&](unsigned l) { total = l == leader ? total : reduce(kind, total, warp[l].value); });
    each([&](unsigned l) { warp[l].result = static_cast<std::uint32_t>(total); });
  }
  each([&](unsigned l) { warp[l].state = State::kReady; });
}

}  // namespace

void release_barrier() {
  Thread* thread = machine.thread;
  int count = 0;
  for (unsigned t = 0; t < machine.threads; ++t) {
    if (thread[t].where.line() != thread[0].where.line() ||
        std::strcmp(thread[t].where.file_name(), thread[0].where.file_name()) != 0)
      give_up("divergent barrier: " + describe(0) + ", " + describe(t));
    count += thread[t].value != 0;
  }
  for (unsigned t = 0; t < machine.threads; ++t) {
    const int all = static_cast<int>(machine.threads);
    thread[t].result = thread[t].barrier == Barrier::kAnd  ? count == all
                       : thread[t].barrier == Barrier::kOr ? count != 0
                                                           : count;
    thread[t].state = State::kReady;
  }
  ++machine.interval;
}

namespace {

// As on the hardware, lanes that have returned (or never existed) need not arrive.
void complete_if_all_arrived(unsigned thread) {
  const Thread& asked = machine.thread[thread];
  const unsigned warp = thread / kWarp, members = asked.mask & machine.present[warp];
  if (members & ~machine.arrived[warp]) return;
  for (unsigned rest = members; rest; rest &= rest - 1) {
    if (!same_collective(machine.thread[warp * kWarp + __builtin_ctz(rest)], asked)) return;
  }
  machine.arrived[warp] &= ~members;
  complete(warp * kWarp, members);
}

}  // namespace

void lane_arrived(unsigned thread) {
  machine.arrived[thread / kWarp] |= 1u << thread % kWarp;
  complete_if_all_arrived(thread);
}

void lane_exited(unsigned thread) {
  const unsigned warp = thread / kWarp;
  machine.present[warp] &= ~(1u << thread % kWarp);
  for (unsigned rest = machine.arrived[warp]; rest; rest &= rest - 1)
    complete_if_all_arrived(warp * kWarp + __builtin_ctz(rest));
}

void explain_deadlock() {
  const Thread* begin = machine.thread;
  const Thread* end = begin + machine.threads;
  const Thread* waiting = std::find_if(begin, end, [](const Thread& t) { return t.state == State::kAtBarrier; });
  if (waiting != end) {
    const Thread* other = std::find_if(begin, end, [](const Thread& t) { return t.state != State::kAtBarrier; });
    give_up("divergent barrier: " + describe(waiting - begin) + ", " + describe(other - begin));
  }
  waiting = std::find_if(begin, end, [](const Thread& t) { return t.state == State::kAtCollective; });
  const unsigned first = (waiting - begin) / kWarp * kWarp;
  for (unsigned l = 0; l < kWarp && first + l < machine.threads; ++l) {
    const Thread& named = machine.thread[first + l];
    if (!(waiting->mask >> l & 1) || named.state == State::kExited) continue;
    if (named.state != State::kAtCollective || !same_collective(named, *waiting))
      give_up("wrong mask: " + describe(waiting - begin) + ", " + describe(first + l));
  }
  give_up("deadlock: " + describe(waiting - begin));
}

}  // namespace simt
