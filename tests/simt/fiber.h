// A fibre: a stack of its own that can be left and re-entered. One CUDA thread of a block is one fibre.
#pragma once
#include <cstddef>

namespace simt {

// Where a fibre (or the host, for the scheduler) stopped. The last three members serve AddressSanitizer only.
struct Context {
  void* resume_at = nullptr;
  void* fake_stack = nullptr;
  const void* stack_bottom = nullptr;
  std::size_t stack_size = 0;
};

constexpr std::size_t kStackBytes = 256 * 1024;  // reserved, not touched: a page costs memory once it is used

// A stack with a guard page below it, kept until the program ends.
char* new_stack();

// Makes `context` start `entry` on `stack` at the next switch. `entry` must never return: it switches away for good.
void prepare(Context& context, char* stack, void (*entry)());

// Leaves `from`, continues `to`; returns when somebody switches back to `from`.
void switch_context(Context& from, Context& to);

// First statement of `entry`: tells AddressSanitizer that `host` is the stack that we came from.
void entered(Context& host);

// After a fibre was abandoned in the middle of its work: forget what its frames had poisoned.
void forget_frames(char* stack);

}  // namespace simt
