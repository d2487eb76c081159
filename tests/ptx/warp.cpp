// How the lanes of a warp go on: together while they agree, in groups where they do not, waiting where an instruction
// needs all of them.
#include <algorithm>
#include <climits>
#include <stdexcept>

#include "machine.h"

namespace ptx {

void Warp::fail(const Instruction& in, const std::string& what) const {
  const Kernel& kernel = launch->kernel;
  const Location& at = kernel.module->locations[in.location];
  throw std::runtime_error(kernel.name + ", block (" + std::to_string(block->index[0]) + ", " +
                           std::to_string(block->index[1]) + ", " + std::to_string(block->index[2]) + "), warp " +
                           std::to_string(index) + ": " + what + " at " + at.file + ':' + std::to_string(at.line) +
                           " '" + kernel.statements[in.statement] + "'");
}

void Warp::set_pc(Mask lanes, int to) {
  for_lanes(lanes, [&](int lane) { pc[lane] = to; });
}

// Schedule 0: the lanes furthest behind go on until they meet others, so that all are together again as early as can
// be. Shuffled: any group, for a few instructions.
void Warp::run(std::uint64_t budget) {
  while (alive != 0 && budget > 0) {
    const Mask ready = alive & ~waiting;
    if (ready == 0) return wait_at_barrier();
    int at = INT_MAX, stop = INT_MAX;
    if (launch->shuffled) {
      Mask rest = ready;
      for (auto skip = launch->random() % std::popcount(ready); skip > 0; --skip) rest &= rest - 1;
      at = pc[std::countr_zero(rest)];
    } else {
      for_lanes(ready, [&](int lane) { at = std::min(at, pc[lane]); });
    }
    Mask group = 0;
    for_lanes(ready, [&](int lane) { group |= pc[lane] == at ? Mask{1} << lane : 0; });
    if (!launch->shuffled) {
      for_lanes(ready & ~group, [&](int lane) { stop = std::min(stop, pc[lane]); });
      run_group(group, at, stop, budget);
    } else {
      std::uint64_t some = group == alive ? budget : std::min<std::uint64_t>(budget, 1 + launch->random() % 24);
      budget -= some;
      run_group(group, at, stop, some);
      budget += some;
    }
  }
}

// Lanes of `group`, all at instruction `at`, until they part, wait, end, or reach `stop`, where others are.
void Warp::run_group(Mask group, int at, int stop, std::uint64_t& budget) {
  const Instruction* const code = launch->kernel.code.data();
  InstructionCounts* const counts = launch->counts.instructions.data();
  while (budget > 0 && at != stop) {
    const Instruction& in = code[at];
    Mask active = group;
    if (in.guard >= 0) {
      const std::uint64_t* guard = lanes(in.guard);
      active = 0;
      for_lanes(group, [&](int lane) { active |= (guard[lane] != 0) != in.guard_negated ? Mask{1} << lane : 0; });
    }
    if (in.control == Control::kCollective || in.control == Control::kBarrier) {
      if (in.guard >= 0) fail(in, "a barrier or collective under a predicate is not supported");
      if (!arrive(in, at, group)) return;
      ++at;
      continue;
    }
    --budget;
    if (active != 0 || in.control == Control::kBranch) {
      ++counts[at].warps;
      counts[at].lanes += std::popcount(active);
    }
    if (active != 0 && in.execute) in.execute(*this, in, active);
    timeline.issue(in);
    switch (in.control) {
      case Control::kNone:
        ++at;
        break;
      case Control::kBranch:
        if (active == group) {
          at = in.target;
          if (stop != INT_MAX || launch->shuffled) return set_pc(group, at);  // others may be there
        } else if (active == 0) {
          ++at;
        } else {
          ++counts[at].divided;
          set_pc(active, in.target);
          return set_pc(group & ~active, at + 1);
        }
        break;
      default:  // return
        set_pc(group & ~active, at + 1);
        return leave(active);
    }
  }
  set_pc(group, at);
}

// Lanes that have returned need not arrive at a collective that names them: whoever waits for them looks again.
void Warp::leave(Mask leaving) {
  alive &= ~leaving;
  for_lanes(alive & waiting, [&](int lane) {
    if (launch->kernel.code[pc[lane]].control == Control::kCollective) waiting &= ~(Mask{1} << lane);
  });
}

// At a barrier or collective: true if it is complete for all of `group`, who may go on.
bool Warp::arrive(const Instruction& in, int at, Mask group) {
  if (in.control == Control::kCollective) {
    const std::uint64_t* named = lanes(in.from[3]);
    const auto first = static_cast<Mask>(named[std::countr_zero(group)]);
    bool same = true;
    for_lanes(group, [&](int lane) {
      if (!(named[lane] >> lane & 1)) fail(in, "wrong mask: it leaves out the caller's own lane");
      same &= static_cast<Mask>(named[lane]) == first;
    });
    if (same && (first & alive) == group) {
      InstructionCounts& counts = launch->counts.instructions[at];
      ++counts.warps;
      counts.lanes += std::popcount(group);
      if (in.execute) in.execute(*this, in, group);
      timeline.issue(in);
      return true;
    }
  }
  set_pc(group, at);
  waiting |= group;
  if (in.control == Control::kCollective) complete_collectives(in, at);
  return false;
}

// Lets those go on whose mask names only lanes that are here with the same mask.
void Warp::complete_collectives(const Instruction& in, int at) {
  const std::uint64_t* named = lanes(in.from[3]);
  Mask here = 0;
  for_lanes(waiting, [&](int lane) { here |= pc[lane] == at ? Mask{1} << lane : 0; });
  for (Mask rest = here; rest != 0;) {
    const auto wanted = static_cast<Mask>(named[std::countr_zero(rest)]) & alive;
    Mask same = 0;
    for_lanes(here, [&](int lane) { same |= (named[lane] & alive) == wanted ? Mask{1} << lane : 0; });
    rest &= ~same;
    if (same != wanted) continue;
    InstructionCounts& counts = launch->counts.instructions[at];
    ++counts.warps;
    counts.lanes += std::popcount(same);
    if (in.execute) in.execute(*this, in, same);
    timeline.issue(in);
    waiting &= ~same;
    set_pc(same, at + 1);
  }
}

void Warp::wait_at_barrier() {
  const int first = pc[std::countr_zero(alive)];
  const Instruction& in = launch->kernel.code[first];
  for_lanes(alive, [&](int lane) {
    if (pc[lane] != first || in.control != Control::kBarrier) {
      fail(in, "divergent barrier: lanes wait for others that wait elsewhere or never come");
    }
  });
  at_barrier = true;
  barrier = first;
}

}  // namespace ptx
