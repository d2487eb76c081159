// Arithmetic with denormal numbers, whatever the user asked of torch: set_flush_denormal reaches some threads and not
// others, and the bits of an answer must not depend on which thread computes it.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <cstdint>

namespace ise_fast {

class ExactFloats {
public:
  ExactFloats() : saved_(read()) { write(saved_ & ~kFlush); }
  ~ExactFloats() { write(saved_); }
  ExactFloats(const ExactFloats&) = delete;
  ExactFloats& operator=(const ExactFloats&) = delete;

private:
#if defined(__x86_64__)
  static constexpr uint64_t kFlush = 0x8040;  // results and operands
  static uint64_t read() { return _mm_getcsr(); }
  static void write(uint64_t mode) { _mm_setcsr(static_cast<unsigned>(mode)); }
#elif defined(__aarch64__)
  static constexpr uint64_t kFlush = uint64_t{1} << 24;
  static uint64_t read() {
    uint64_t mode;
    asm volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
  }
  static void write(uint64_t mode) { asm volatile("msr fpcr, %0" : : "r"(mode)); }
#else
  static constexpr uint64_t kFlush = 0;
  static uint64_t read() { return 0; }
  static void write(uint64_t) {}
#endif

  const uint64_t saved_;
};

}  // namespace ise_fast
