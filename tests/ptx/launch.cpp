// A grid: its blocks one after the other, or some of them at once in random order.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "machine.h"

namespace ptx {
namespace {

constexpr std::size_t kResident = 3;  // blocks at once, when shuffled

std::uint64_t special(const Launch& launch, const Block& block, int warp, int lane, int which) {
  const unsigned thread = kWarpSize * static_cast<unsigned>(warp) + static_cast<unsigned>(lane);
  const std::uint64_t one = std::uint64_t{1} << lane;
  switch (which) {
    case kThreadX:
      return thread % launch.block.x;
    case kThreadY:
      return thread / launch.block.x % launch.block.y;
    case kThreadZ:
      return thread / launch.block.x / launch.block.y;
    case kBlockSizeX:
      return launch.block.x;
    case kBlockSizeY:
      return launch.block.y;
    case kBlockSizeZ:
      return launch.block.z;
    case kBlockX:
      return block.index[0];
    case kBlockY:
      return block.index[1];
    case kBlockZ:
      return block.index[2];
    case kGridX:
      return launch.grid.x;
    case kGridY:
      return launch.grid.y;
    case kGridZ:
      return launch.grid.z;
    case kLane:
      return static_cast<std::uint64_t>(lane);
    case kWarp:
      return static_cast<std::uint64_t>(warp);
    case kLanesBelow:
      return one - 1;
    case kLanesUpTo:
      return 2 * one - 1;
    case kThisLane:
      return one;
    case kLanesAbove:
      return 0xffffffff & ~(2 * one - 1);
    default:
      return 0xffffffff & ~(one - 1);
  }
}

}  // namespace

void Block::start(Launch& launch, std::uint64_t number) {
  const Kernel& kernel = launch.kernel;
  this->number = static_cast<std::uint32_t>(number) + 1;
  brought = 0;
  index[0] = static_cast<unsigned>(number % launch.grid.x);
  index[1] = static_cast<unsigned>(number / launch.grid.x % launch.grid.y);
  index[2] = static_cast<unsigned>(number / launch.grid.x / launch.grid.y);
  shared.assign(static_cast<std::size_t>(kernel.static_shared) + launch.shared_bytes, 0xff);
  words.assign(shared.size() / 4 + 2, {});
  interval = 1;
  const auto threads = static_cast<int>(launch.block.count());
  const bool first = warps.empty();
  warps.resize(static_cast<std::size_t>(threads + kWarpSize - 1) / kWarpSize);
  for (std::size_t w = 0; w < warps.size(); ++w) {
    Warp& warp = warps[w];
    const int lanes = std::min(kWarpSize, threads - kWarpSize * static_cast<int>(w));
    warp.launch = &launch;
    warp.block = this;
    warp.index = static_cast<int>(w);
    warp.alive = lanes == kWarpSize ? kAllLanes : (Mask{1} << lanes) - 1;
    warp.waiting = 0;
    warp.at_barrier = false;
    warp.timeline.start(kernel.registers);
    std::fill(warp.pc, warp.pc + kWarpSize, 0);
    // What a kernel reads before it has written it is not defined; later blocks find what the ones before left.
    if (first) warp.registers.assign(std::size_t{kWarpSize} * kernel.registers, 0xdeadbeef);
    for (const Preset& preset : kernel.presets) {
      const bool is_constant = preset.what == Preset::What::kConstant;
      if (is_constant && !first) continue;
      for (int lane = 0; lane < kWarpSize; ++lane) {
        warp.lanes(preset.slot)[lane] =
            is_constant ? preset.value : special(launch, *this, warp.index, lane, static_cast<int>(preset.value));
      }
    }
  }
}

bool Block::release_barrier() {
  const Warp* first = nullptr;
  for (const Warp& warp : warps) {
    if (warp.done()) continue;
    if (!warp.at_barrier) return false;
    if (!first) first = &warp;
  }
  if (!first) return true;
  const Instruction& in = first->launch->kernel.code[first->barrier];
  std::uint64_t votes = 0, lanes_here = 0;
  for (Warp& warp : warps) {
    if (warp.done()) warp.fail(in, "divergent barrier: warp " + std::to_string(warp.index) + " has returned");
    if (warp.barrier != first->barrier) warp.fail(in, "divergent barrier: warps wait at different ones");
    lanes_here += std::popcount(warp.alive);
    if (in.from[0] < 0) continue;
    for_lanes(warp.alive, [&](int lane) { votes += (warp.lanes(in.from[0])[lane] != 0) != in.negated; });
  }
  if (lanes_here < first->launch->block.count()) first->fail(in, "divergent barrier: some threads have returned");
  enum { kAdd = 0, kAnd = 3, kOr = 4 };  // as collectives.cpp has them
  const std::uint64_t result = in.operation == kOr ? votes != 0 : in.operation == kAnd ? votes == lanes_here : votes;
  InstructionCounts& counts = first->launch->counts.instructions[first->barrier];
  const int after = first->barrier + 1;
  std::uint64_t together = 0;
  for (const Warp& warp : warps) together = std::max(together, warp.timeline.now());
  for (Warp& warp : warps) {
    warp.timeline.resume(together);
    ++counts.warps;
    counts.lanes += std::popcount(warp.alive);
    if (in.to[0] >= 0) for_lanes(warp.alive, [&](int lane) { warp.lanes(in.to[0])[lane] = result; });
    for_lanes(warp.alive, [&](int lane) { warp.pc[lane] = after; });
    warp.at_barrier = false;
    warp.waiting = 0;
  }
  ++interval;
  return false;
}

namespace {

// Blocks that a multiprocessor holds at once: it has 64 warps, 228 KB of shared memory, 1 of them for each block, and
// 64 K registers. ptxas alone knows how many a thread needs; 40 are assumed.
double blocks_at_once(const Launch& launch) {
  const auto threads = static_cast<double>(launch.block.count());
  const double shared = static_cast<double>(launch.kernel.static_shared) + static_cast<double>(launch.shared_bytes);
  return std::floor(std::min({32.0, 2048 / threads, 65536 / (40 * threads), 228 * 1024 / (shared + 1024)}));
}

// The clocks of each block are those of its slowest warp.
struct Clocks {
  std::uint64_t longest = 0, sum = 0;

  void add(const Block& block) {
    std::uint64_t last = 0;
    for (const Warp& warp : block.warps) last = std::max(last, warp.timeline.now());
    longest = std::max(longest, last);
    sum += last;
  }
};

// Lets a warp that may go on do so; false if none can.
bool step(Launch& launch, Block& block) {
  std::vector<Warp*> ready;
  for (Warp& warp : block.warps) {
    if (!warp.done() && !warp.at_barrier) ready.push_back(&warp);
  }
  if (ready.empty()) return false;
  ready[launch.random() % ready.size()]->run(1 + launch.random() % 96);
  return true;
}

void run_in_order(Launch& launch, Clocks& clocks) {
  Block block;
  for (std::uint64_t number = 0; number < launch.grid.count(); ++number) {
    block.start(launch, number);
    do {
      for (Warp& warp : block.warps) {
        if (warp.done() || warp.at_barrier) continue;
        warp.run(launch.limit);
        if (!warp.done() && !warp.at_barrier) warp.fail(launch.kernel.code[warp.pc[0]], "does not come to an end");
      }
    } while (!block.release_barrier());
    clocks.add(block);
  }
}

void run_shuffled(Launch& launch, Clocks& clocks) {
  std::vector<std::uint64_t> order(launch.grid.count());
  for (std::uint64_t i = 0; i < order.size(); ++i) order[i] = i;
  std::shuffle(order.begin(), order.end(), launch.random);
  std::vector<Block> resident(std::min(kResident, order.size()));
  std::size_t next = 0;
  for (Block& block : resident) block.start(launch, order[next++]);
  for (std::size_t running = resident.size(); running > 0;) {
    Block& block = resident[launch.random() % running];
    if (step(launch, block) || !block.release_barrier()) continue;
    clocks.add(block);
    if (next < order.size()) {
      block.start(launch, order[next++]);
    } else {
      std::swap(block, resident[--running]);
      for (Block& moved : resident) {
        for (Warp& warp : moved.warps) warp.block = &moved;
      }
    }
  }
}

}  // namespace

void run(Launch& launch) {
  const Kernel& kernel = launch.kernel;
  if (!kernel.refusal.empty()) throw std::runtime_error(kernel.name + ": " + kernel.refusal);
  constexpr std::size_t kMostShared = 48 << 10;  // static and dynamic, without asking for more
  const Size &grid = launch.grid, &block = launch.block;
  if (grid.count() == 0 || grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535 || block.count() == 0 ||
      block.count() > 1024 || kernel.static_shared + launch.shared_bytes > kMostShared) {
    throw std::runtime_error(kernel.name + ": cannot be launched with a grid of (" + std::to_string(grid.x) + ", " +
                             std::to_string(grid.y) + ", " + std::to_string(grid.z) + ") blocks of " +
                             std::to_string(block.count()) + " threads and " + std::to_string(launch.shared_bytes) +
                             " bytes of dynamic shared memory beside " + std::to_string(kernel.static_shared) +
                             " static ones");
  }
  for (const auto& variable : kernel.module->variables) {
    const auto begin = reinterpret_cast<std::uint64_t>(variable->bytes.data());
    launch.ranges.push_back({begin, begin + variable->bytes.size()});
  }
  std::sort(launch.ranges.begin(), launch.ranges.end(),
            [](const Range& a, const Range& b) { return a.begin < b.begin; });
  if (launch.ranges.empty()) launch.ranges.push_back({0, 0});
  launch.touched.resize(launch.ranges.size());
  // The first cache is what shared memory leaves of 256 KB, and all blocks have a part of it.
  const double shared = static_cast<double>(kernel.static_shared) + static_cast<double>(launch.shared_bytes);
  launch.first_cache = static_cast<std::uint64_t>((256 * 1024 / blocks_at_once(launch) - shared) / 32);
  Clocks clocks;
  launch.shuffled ? run_shuffled(launch, clocks) : run_in_order(launch, clocks);
  launch.counts.launches += 1;
  launch.counts.blocks += grid.count();
  launch.counts.warps += grid.count() * ((block.count() + kWarpSize - 1) / kWarpSize);
  launch.counts.longest_block += clocks.longest;
  launch.counts.occupied += static_cast<double>(clocks.sum) / blocks_at_once(launch);
}

}  // namespace ptx
