// What is thrown when memory does not suffice: it says how much was asked for. Python sees MemoryError.
#pragma once

#include <cstdint>
#include <cstdio>
#include <new>

namespace ise_fast {

class OutOfMemory : public std::bad_alloc {
public:
  explicit OutOfMemory(uint64_t bytes) noexcept {
    std::snprintf(text_, sizeof text_, "out of memory: asked for %.2f GiB (%llu bytes)",
                  static_cast<double>(bytes) / (1 << 30), static_cast<unsigned long long>(bytes));
  }
  const char* what() const noexcept override { return text_; }

private:
  char text_[96];  // no string: there may be no memory for one
};

}  // namespace ise_fast
