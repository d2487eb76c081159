// The machine that runs kernels: a launch, its blocks and warps, and what it counts. A warp is 32 lanes that share
// their instructions as long as they agree about the next one.
#pragma once
#include <bit>
#include <random>
#include <string>
#include <vector>

#include "counts.h"
#include "kernel.h"
#include "timeline.h"

namespace ptx {

struct Size {
  unsigned x = 1, y = 1, z = 1;
  std::uint64_t count() const { return std::uint64_t{x} * y * z; }
};

// Memory that a kernel may touch: what PyTorch allocated, and the variables of the module. Sorted, disjoint.
struct Range {
  std::uint64_t begin, end;
};

// The block that last brought a sector to its multiprocessor, from 1, and how many it had brought before.
struct Touch {
  std::uint32_t block = 0, before = 0;
};

class Block;

struct Launch {
  const Kernel& kernel;
  Size grid, block;
  std::size_t shared_bytes;  // dynamic
  std::vector<std::uint8_t> parameters;
  std::vector<Range> ranges;
  KernelCounts& counts;
  std::mt19937_64 random;
  std::uint64_t limit = 0;  // instructions of a warp between two barriers
  bool shuffled = false;    // lanes, warps and blocks in random order instead of ascending
  std::size_t last_range = 0;
  std::uint64_t first_cache = 0;            // sectors of it that a block has
  std::vector<std::vector<Touch>> touched;  // by sectors of a range
};

class Warp {
public:
  // Runs until every lane has returned or waits at the block's barrier, or `budget` instructions were run.
  void run(std::uint64_t budget);

  bool done() const { return alive == 0; }
  std::uint64_t* lanes(int slot) { return registers.data() + std::size_t{kWarpSize} * slot; }
  [[noreturn]] void fail(const Instruction& instruction, const std::string& what) const;

  Launch* launch = nullptr;
  Block* block = nullptr;
  int index = 0;
  Mask alive = 0, waiting = 0;
  int pc[kWarpSize] = {};
  bool at_barrier = false;
  int barrier = 0;  // its instruction
  Timeline timeline;
  std::vector<std::uint64_t> registers;  // [register][lane]
  std::vector<std::uint8_t> local;

private:
  void run_group(Mask group, int at, int stop, std::uint64_t& budget);
  bool arrive(const Instruction& instruction, int at, Mask group);
  void complete_collectives(const Instruction& instruction, int at);
  void leave(Mask lanes);
  void wait_at_barrier();
  void set_pc(Mask lanes, int to);
};

// What a word of shared memory has seen since the last barrier.
struct SharedWord {
  std::uint32_t written = 0, read = 0;  // in which interval between barriers; 0: never
  int writer = -1, reader = -1;         // which warp; kSeveral: more than one
};
constexpr int kSeveral = -2;

class Block {
public:
  void start(Launch& launch, std::uint64_t number);
  bool release_barrier();  // true if the block has ended

  std::uint32_t number = 0, brought = 0;  // of the launch, from 1; sectors
  unsigned index[3] = {};
  std::vector<Warp> warps;
  std::vector<std::uint8_t> shared;
  std::vector<SharedWord> words;
  std::uint32_t interval = 1;
};

// Runs a whole grid. Throws std::runtime_error with kernel, block, warp and source line on any misuse.
void run(Launch& launch);

// How arithmetic.cpp, memory.cpp and collectives.cpp hand their instructions to decode.cpp; null: no such instruction.
struct Mnemonic {
  std::string name;                    // "add"
  std::vector<std::string> modifiers;  // "rn", "sync", "bfly"
  bool has(const char* modifier) const;
};
Instruction::Execute arithmetic(const Mnemonic& mnemonic, Instruction& instruction);
Instruction::Execute load(Type type);
Instruction::Execute store(Type type);
Instruction::Execute atomic(const Mnemonic& mnemonic, Instruction& instruction);
Instruction::Execute collective(const Mnemonic& mnemonic, Instruction& instruction);

// Generic addresses of shared memory start here; nothing of the host lies there.
constexpr std::uint64_t kSharedWindow = std::uint64_t{0xf} << 60;

template <class Action>
inline void for_lanes(Mask active, Action action) {
  if (active == kAllLanes) {
    for (int lane = 0; lane < kWarpSize; ++lane) action(lane);
  } else {
    for (; active; active &= active - 1) action(std::countr_zero(active));
  }
}

// A register holds the bits of its value, zeros above.
template <class T>
inline T get(std::uint64_t bits) {
  if constexpr (sizeof(T) == 8)
    return std::bit_cast<T>(bits);
  else if constexpr (sizeof(T) == 4)
    return std::bit_cast<T>(static_cast<std::uint32_t>(bits));
  else
    return static_cast<T>(bits);
}
template <class T>
inline std::uint64_t put(T value) {
  if constexpr (sizeof(T) == 8)
    return std::bit_cast<std::uint64_t>(value);
  else if constexpr (sizeof(T) == 4)
    return std::bit_cast<std::uint32_t>(value);
  else
    return static_cast<std::uint64_t>(static_cast<std::make_unsigned_t<T>>(value));
}

// Handler::run<T> for the C++ type of `type`; null where it is not one of these.
template <class Handler>
Instruction::Execute for_integer(Type type) {
  switch (type) {
    case Type::kU8:
      return &Handler::template run<std::uint8_t>;
    case Type::kS8:
      return &Handler::template run<std::int8_t>;
    case Type::kU16:
      return &Handler::template run<std::uint16_t>;
    case Type::kS16:
      return &Handler::template run<std::int16_t>;
    case Type::kU32:
      return &Handler::template run<std::uint32_t>;
    case Type::kS32:
      return &Handler::template run<std::int32_t>;
    case Type::kU64:
      return &Handler::template run<std::uint64_t>;
    case Type::kS64:
      return &Handler::template run<std::int64_t>;
    default:
      return nullptr;
  }
}
template <class Handler>
Instruction::Execute for_float(Type type) {
  if (type == Type::kF32) return &Handler::template run<float>;
  return type == Type::kF64 ? &Handler::template run<double> : nullptr;
}
template <class Handler>
Instruction::Execute for_number(Type type) {
  const Instruction::Execute found = for_float<Handler>(type);
  return found ? found : for_integer<Handler>(type);
}

}  // namespace ptx
