// Loaded before everything else (LD_PRELOAD): the exact bounds of what PyTorch's CPU allocator hands out, so that an
// access one byte beyond a tensor is found, and how much of it lives at once. New memory is filled with 0xff.
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <mutex>

extern "C" void* __libc_memalign(std::size_t alignment, std::size_t bytes);
extern "C" void __libc_free(void* pointer);

namespace {

constexpr std::size_t kFilled = std::size_t{1} << 26;  // more is taken in dry runs only

std::mutex mutex;
thread_local bool inside = false;  // our own map allocates as well
bool paused = false;
std::uint64_t number = 0, live = 0, peak = 0;

struct Allocation {
  std::uint64_t end;
  bool counted;
};
std::map<std::uint64_t, Allocation>& table() {
  static auto* all = new std::map<std::uint64_t, Allocation>;  // never destroyed: free comes later than everything
  return *all;
}

class Lock {
public:
  Lock() : guard_(mutex) { inside = true; }
  ~Lock() { inside = false; }

private:
  std::lock_guard<std::mutex> guard_;
};

}  // namespace

extern "C" {

int posix_memalign(void** out, std::size_t alignment, std::size_t bytes) {
  void* pointer = __libc_memalign(alignment, bytes ? bytes : 1);
  if (!pointer) return ENOMEM;
  if (bytes <= kFilled) std::memset(pointer, 0xff, bytes);
  if (!inside) {
    const Lock lock;
    const auto begin = reinterpret_cast<std::uint64_t>(pointer);
    table()[begin] = {begin + bytes, !paused};
    if (!paused) {
      ++number;
      live += bytes;
      peak = live > peak ? live : peak;
    }
  }
  *out = pointer;
  return 0;
}

void free(void* pointer) {
  if (pointer && !inside && reinterpret_cast<std::uint64_t>(pointer) % 64 == 0) {
    const Lock lock;
    const auto found = table().find(reinterpret_cast<std::uint64_t>(pointer));
    if (found != table().end()) {
      if (found->second.counted) live -= found->second.end - found->first;
      table().erase(found);
    }
  }
  __libc_free(pointer);
}

// begin, end, begin, end, ... ascending; returns how many pairs.
std::size_t ptx_allocations(std::uint64_t* out, std::size_t most) {
  const Lock lock;
  std::size_t i = 0;
  for (const auto& [begin, allocation] : table()) {
    if (i == most) break;
    out[2 * i] = begin;
    out[2 * i + 1] = allocation.end;
    ++i;
  }
  return i;
}

void ptx_allocations_pause(bool now) {
  paused = now;
}

// From here on: what was allocated before does not count.
void ptx_allocations_clear() {
  const Lock lock;
  for (auto& [begin, allocation] : table()) allocation.counted = false;
  number = live = peak = 0;
}

void ptx_allocations_totals(std::uint64_t* allocations, std::uint64_t* peak_bytes) {
  *allocations = number;
  *peak_bytes = peak;
}

}  // extern "C"
