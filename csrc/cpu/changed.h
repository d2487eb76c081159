// Another thread may write to a tensor while an operator reads it. The answer may then be anything, but no access may
// leave a buffer: what was checked is what is used, and nothing is counted on that a second reading could undo.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace ise_fast {

// One reading of what may change meanwhile.
template <class T>
T load_once(const T* address) {
  T value;
  __atomic_load(address, &value, __ATOMIC_RELAXED);
  return value;
}

// A copy, for short inputs that are checked first and used as positions later.
template <class T>
std::vector<T> copy_of(const T* from, int64_t count) {
  return std::vector<T>(from, from + count);
}

[[noreturn]] inline void throw_changed(const char* name) {
  throw std::invalid_argument(std::string(name) + ": changed by another thread during the call");
}

}  // namespace ise_fast
