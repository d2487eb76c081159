// How a running operator hears of Ctrl-C. csrc knows no Python: whoever loads the library may set a function, which the
// working threads call now and then and which throws to end the operator (python/module.cpp sets one).
#pragma once

#include <atomic>
#include <chrono>

namespace ise_fast {

using InterruptCheck = void (*)();
inline std::atomic<InterruptCheck> interrupt_check{nullptr};
inline thread_local int uninterrupted = 0;

// To be called between pieces of work of less than half a second; it mostly looks at the clock only. May throw.
inline void poll_interrupt() {
  using Clock = std::chrono::steady_clock;
  constexpr std::chrono::milliseconds kInterval{200};
  thread_local Clock::time_point next;
  const InterruptCheck check = interrupt_check.load(std::memory_order_relaxed);
  if (check == nullptr || uninterrupted > 0) return;
  const Clock::time_point now = Clock::now();
  if (now < next) return;
  next = now + kInterval;
  check();
}

// While one lives, nothing on this thread is interrupted: what belongs to the caller is being written.
class Uninterrupted {
public:
  Uninterrupted() { ++uninterrupted; }
  ~Uninterrupted() { --uninterrupted; }
  Uninterrupted(const Uninterrupted&) = delete;
  Uninterrupted& operator=(const Uninterrupted&) = delete;
};

}  // namespace ise_fast
