// What a run counts, per instruction of a kernel, and the report of it.
#pragma once
#include <cstdint>
#include <map>
#include <ostream>
#include <string>
#include <vector>

#include "kernel.h"

namespace ptx {

struct InstructionCounts {
  std::uint64_t warps = 0;     // executions by a warp; of an access to memory: requests
  std::uint64_t lanes = 0;     // active in them
  std::uint64_t sectors = 0;   // of 32 bytes, moved by requests to global memory
  std::uint64_t used = 0;      // bytes of them that a lane asked for
  std::uint64_t waves = 0;     // passes that requests to shared memory take: 1 is ideal for 4 bytes a lane, 2 for 8
  std::uint64_t divided = 0;   // branches where the lanes did not agree
  std::uint64_t meetings = 0;  // atomics on a word beyond the first of the same request
};

struct KernelCounts {
  const Kernel* kernel = nullptr;
  std::vector<InstructionCounts> instructions;
  std::uint64_t launches = 0, blocks = 0, warps = 0;
  std::uint64_t touched = 0;        // sectors, each once a launch: what must come from memory at least
  std::uint64_t fetched = 0;        // sectors that L2 was asked for: not those that the block still had
  std::uint64_t longest_block = 0;  // clocks (timeline.h) of the slowest block, summed over launches
  double occupied = 0;              // clocks of all blocks over how many of them a multiprocessor holds at once
};

// A call that leaves the kernels: a launch, a product, a copy. Listed in the order they come.
struct Event {
  std::string kind;                                          // "launch", "product", "cub", "fill", "read_back"
  std::string name;                                          // of the kernel or function
  std::vector<std::pair<std::string, std::int64_t>> values;  // grid, block, bytes, m, n, k, ...
};

struct Counts {
  std::map<std::string, KernelCounts> kernels;  // by symbol
  std::vector<Event> events;
  std::uint64_t allocations = 0, peak_bytes = 0;

  KernelCounts& of(const Kernel& kernel);
  void write(std::ostream& out) const;  // as JSON
};

Counts& counts();  // of everything since they were last cleared

}  // namespace ptx
