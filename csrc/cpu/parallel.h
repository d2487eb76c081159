// Threads: torch's own pool, each thread taking the next block of work when it is free. Everything that runs in
// parallel on the CPU goes through here, because here
//   * an exception of any thread ends the work of all and is thrown again by the caller, with its type and text
//     (torch's C interface would lose both);
//   * Ctrl-C is heard between two blocks (interrupt.h);
//   * all threads treat denormal numbers alike (float_mode.h).
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>

#include "../interrupt.h"
#include "float_mode.h"

namespace ise_fast {

// The first exception of several threads.
class FirstError {
public:
  bool any() const { return taken_.load(std::memory_order_relaxed); }
  // Runs `work`; keeps what it throws.
  template <class Work>
  void guard(const Work& work) {
    try {
      work();
    } catch (...) {
      if (!taken_.exchange(true)) error_ = std::current_exception();
    }
  }
  // By the caller, when all threads are done.
  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

private:
  std::atomic<bool> taken_{false};
  std::exception_ptr error_;
};

// Hands out blocks of work, to all threads.
class Blocks {
public:
  explicit Blocks(int64_t count) : count_(count) {}

  // 0, 1, ..., count - 1 and then `count`; `count` also when the work has failed.
  int64_t operator()() {
    return proceed() ? std::min(counter_.fetch_add(1, std::memory_order_relaxed), count_) : count_;
  }
  // Between pieces of a block that may take long: false when the rest is not wanted any more.
  bool proceed() const {
    poll_interrupt();
    return !error.any();
  }

  FirstError error;

private:
  const int64_t count_;
  std::atomic<int64_t> counter_{0};
};

// Calls run(next) once per thread, next being `Blocks`. Whatever is allocated in `run` belongs to one thread. Results
// must be stored by block, never by thread: who gets which block is chance. A block should take less than half a
// second. `least_threads` 2: never outside a parallel region (matrix.h).
template <class Run>
void parallel_blocks(int64_t blocks, const Run& run, int64_t least_threads = 1) {
  Blocks next(blocks);
  const int64_t threads = std::max(std::min<int64_t>(torch::stable::get_num_threads(), blocks), least_threads);
  torch::stable::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
    next.error.guard([&] {
      const ExactFloats exact;
      for (int64_t thread = begin; thread < end; ++thread) run(next);
    });
  });
  next.error.rethrow();
}

// body(first, last) for pieces of at most `grain` that make up [begin, end), in any order.
template <class Body>
void parallel_for(int64_t begin, int64_t end, int64_t grain, const Body& body) {
  const int64_t blocks = (end - begin + grain - 1) / grain;
  parallel_blocks(blocks, [&](Blocks& next) {
    for (int64_t block = next(); block < blocks; block = next()) {
      body(begin + block * grain, std::min(end, begin + (block + 1) * grain));
    }
  });
}

// Rows of one block: enough blocks to even out hubs, big enough to keep the counter out of the way.
inline constexpr int64_t kRowsPerBlock = 64;

// The same with rows: run(rows) once per thread, where rows(body) calls body(i) for every row that falls to the thread.
template <class Run>
void parallel_rows(int64_t count, const Run& run) {
  const int64_t blocks = (count + kRowsPerBlock - 1) / kRowsPerBlock;
  parallel_blocks(blocks, [&](Blocks& next) {
    run([&](const auto& body) {
      for (int64_t block = next(); block < blocks; block = next()) {
        const int64_t end = std::min(count, (block + 1) * kRowsPerBlock);
        for (int64_t i = block * kRowsPerBlock; i < end && next.proceed(); ++i) body(i);
      }
    });
  });
}

}  // namespace ise_fast
