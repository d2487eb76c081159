// How far the running searches for neighbours are, for whoever asks from another thread (python/module.cpp does).
#pragma once

#include <atomic>
#include <cstdint>

namespace ise_fast {

// Pieces of all searches of the process that are running.
inline std::atomic<int64_t> search_pieces{0}, search_pieces_done{0};

// One search; to be told of each piece that is done, from any thread.
class SearchProgress {
public:
  explicit SearchProgress(int64_t pieces) : pieces_(pieces) { search_pieces += pieces; }
  ~SearchProgress() {
    search_pieces_done -= done_;
    search_pieces -= pieces_;
  }
  SearchProgress(const SearchProgress&) = delete;
  SearchProgress& operator=(const SearchProgress&) = delete;

  void step() {
    done_.fetch_add(1, std::memory_order_relaxed);
    search_pieces_done.fetch_add(1, std::memory_order_relaxed);
  }

private:
  const int64_t pieces_;
  std::atomic<int64_t> done_{0};
};

}  // namespace ise_fast
