// State that the scheduler and the race detector share. Internal to the runtime.
#pragma once
#include <cstdint>
#include <string>

#include "fiber.h"
#include "runtime.h"

namespace simt {

constexpr unsigned kWarp = 32;
constexpr unsigned kMaxThreads = 1024;
constexpr std::size_t kMaxSharedBytes = 48 * 1024;  // without asking, and nobody asks

enum class State : std::uint8_t { kReady, kAtBarrier, kAtCollective, kExited };

struct Thread {
  Context context;
  char* stack = nullptr;
  uint3 index{};
  State state = State::kExited;
  // What a waiting thread asked for.
  const char* name = "";
  Where where;
  Barrier barrier{};
  Collective collective{};
  unsigned mask = 0;
  unsigned source = 0;
  std::uint64_t value = 0;
  std::uint64_t result = 0;
};

struct Memory {
  char* begin = nullptr;
  char* end = nullptr;
  bool holds(const volatile void* address) const {
    return const_cast<const char*>(static_cast<const volatile char*>(address)) >= begin &&
           const_cast<const char*>(static_cast<const volatile char*>(address)) < end;
  }
};

struct Machine {
  const char* kernel = "";
  uint3 grid_size{}, block_size{}, block{};
  unsigned threads = 0;      // of a block
  Thread* thread = nullptr;  // all of them
  unsigned current = 0;      // the one that runs
  bool running = false;      // a kernel's own code is being executed
  // Lanes of each warp: those that have not returned, and of them those that wait at a collective.
  unsigned present[kMaxThreads / kWarp] = {}, arrived[kMaxThreads / kWarp] = {};
  std::string error;

  Memory static_shared, dynamic_shared, dynamic_guard;  // the guard encloses the dynamic part

  // Time. An interval is what lies between two barriers of a block; numbers are never used twice, so that an access
  // recorded in an earlier interval needs no clearing.
  std::uint32_t interval = 0, first_of_block = 0, first_of_launch = 0;
  // Inside an interval, __syncwarp orders the threads of a warp: thread t has seen what lane l of its warp did before
  // l's clock reached seen[t][l].
  std::uint32_t clock[kMaxThreads] = {};
  std::uint32_t seen[kMaxThreads][kWarp] = {};
};

extern Machine machine;

uint3 thread_index(unsigned linear);
std::string text(const uint3& v);
std::string text(const Where& where);

// Stops the thread that runs, for good, with an error that starts with the kernel's name.
[[noreturn]] void stop(const std::string& message);

// Called by the scheduler, in rendezvous.cpp. They throw where threads do not meet as they must.
void release_barrier();                // every thread of the block has arrived
void lane_arrived(unsigned thread);    // that thread has arrived at a warp collective
void lane_exited(unsigned thread);     // its warp need not wait for it any longer
[[noreturn]] void explain_deadlock();  // nobody can go on: say who waits for whom

namespace shadow {
enum class Access : std::uint8_t { kRead, kWrite, kAtomicRead, kAtomicWrite };
void begin_launch();
// Records an access by the running thread and stops it if it conflicts with another thread's.
void access(const volatile void* address, std::size_t bytes, Access kind, const void* code);
}  // namespace shadow

}  // namespace simt
