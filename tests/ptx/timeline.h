// When a warp would do what it does if it had its multiprocessor to itself: the chain of instructions that wait for
// each other, in clocks.
//
// ptxas reorders instructions between two branches, so that loads come before what needs them, and the hardware issues
// them in the order it finds. So here an instruction is issued when its operands are there and its pipe is free, and a
// branch when everything before it was issued. A load does not pass a store to the same space, since ptxas cannot know
// whether they meet, unless the kernel promises that nobody writes there.
#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include "kernel.h"

namespace ptx {

// Where a request to memory was answered.
enum class Level : std::uint8_t { kShared, kFirst, kSecond, kMemory };  // L1 and L2 are kFirst and kSecond

class Timeline {
public:
  void start(int registers);
  // Memory says where a request was answered and how many passes it took, before it is issued.
  void answered(Level level, std::uint64_t passes);
  void issue(const Instruction& instruction);
  void resume(std::uint64_t barrier);  // all warps of the block have arrived at this clock
  std::uint64_t now() const { return last_; }

private:
  void branch();

  std::uint64_t begin_ = 0, last_ = 0;  // of the piece between two branches: its start, its last issue
  std::uint64_t number_ = 0;            // instructions of the piece so far: one is issued a clock
  std::uint64_t stored_[2] = {};        // the last store of the piece: to global, to shared memory
  std::array<std::uint64_t, static_cast<int>(Kind::kNumber)> busy_ = {};  // when a pipe is free again
  std::vector<std::uint64_t> ready_;                                      // when a register has its value
  std::uint64_t answer_ = 0, passes_ = 1;
};

}  // namespace ptx
