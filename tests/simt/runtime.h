// What the kernels' vocabulary (intrinsics.h) asks of the machine that runs them (scheduler.cpp, shadow.cpp).
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <source_location>

#include "types.h"

namespace simt {

using Where = std::source_location;  // the line of the kernel that speaks, for the error messages

enum class Collective : std::uint8_t {
  kSync,
  kShuffle,
  kBallot,
  kMatchAny,
  kAddUnsigned,
  kMinUnsigned,
  kMaxUnsigned,
  kMinSigned,
  kMaxSigned,
  kAnd,
  kOr,
  kXor,
};

enum class Barrier : std::uint8_t { kPlain, kCount, kAnd, kOr };

// 0 runs threads and blocks in ascending order; every other seed permutes them and adds preemption at atomics.
void set_schedule(std::uint64_t seed);

// Runs `body` once for every thread of the grid. Throws std::runtime_error, naming kernel and thread, on misuse.
void launch(const char* kernel, dim3 grid, dim3 block, std::size_t dynamic_shared_bytes,
            const std::function<void()>& body);

// The rest is called by the threads of a kernel.
unsigned lane();
void* dynamic_shared();
int barrier(Barrier kind, const char* name, int predicate, const Where& where);
// kShuffle returns the value of lane `source`, the others what CUDA's collective of that name returns.
std::uint64_t collective(Collective kind, const char* name, unsigned mask, std::uint64_t value, unsigned source,
                         const Where& where);
void atomic_access(const volatile void* address, std::size_t bytes, bool writes, const Where& where);
[[noreturn]] void fail(const char* message, const Where& where);

}  // namespace simt
