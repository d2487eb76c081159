// Threads for work of uneven cost: torch's own pool, each thread taking the next block of rows when it is free.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace ise_fast {

// Calls run(next) once per thread; next() hands out 0, 1, ..., blocks - 1 and then `blocks`. Whatever is allocated in
// `run` belongs to one thread. Results must be stored by block, never by thread: who gets which block is chance.
template <class Run>
void parallel_blocks(int64_t blocks, const Run& run) {
  std::atomic<int64_t> counter{0};
  const auto next = [&] { return std::min(counter.fetch_add(1, std::memory_order_relaxed), blocks); };
  const int64_t threads = std::min<int64_t>(torch::stable::get_num_threads(), blocks);
  torch::stable::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t thread = begin; thread < end; ++thread) run(next);
  });
}

// Rows of one block: enough blocks to even out hubs, big enough to keep the counter out of the way.
inline constexpr int64_t kRowsPerBlock = 64;

// The same with rows: run(rows) once per thread, where rows(body) calls body(i) for every row that falls to the thread.
template <class Run>
void parallel_rows(int64_t count, const Run& run) {
  const int64_t blocks = (count + kRowsPerBlock - 1) / kRowsPerBlock;
  parallel_blocks(blocks, [&](const auto& next) {
    run([&](const auto& body) {
      for (int64_t block = next(); block < blocks; block = next()) {
        const int64_t end = std::min(count, (block + 1) * kRowsPerBlock);
        for (int64_t i = block * kRowsPerBlock; i < end; ++i) body(i);
      }
    });
  });
}

}  // namespace ise_fast
