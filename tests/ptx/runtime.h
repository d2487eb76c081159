// What the fake runtime pretends to be, and what it shares with the rest of the host's side.
#pragma once
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "machine.h"

namespace ptx {

struct Settings {
  std::uint64_t schedule = 0;                         // 0: in order; else the seed of a random one
  bool executes = true;                               // false: launches are counted, not run
  int multiprocessors = 4, shared_bytes = 99 * 1024;  // as tests/simt: a small device
  std::uint64_t limit = std::uint64_t{1} << 28;       // instructions of a warp between two barriers: more is a hang
  std::size_t memory_bytes = std::size_t{64} << 20;
  std::int64_t most_numbers = std::numeric_limits<std::int64_t>::max();  // of scratch that is planned by shape
};
Settings& settings();

// What is allocated now; everything if allocations.cpp is not loaded before the rest of the process.
std::vector<Range> allocated();

}  // namespace ptx
