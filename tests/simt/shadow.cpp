// The race detector. Kernels are compiled with -fsanitize=thread but linked with the hooks below instead of the
// sanitizer's library, so every load and store of theirs arrives here. For each word we keep the last write and a few
// reads; two accesses of different threads, one of them a write, not both atomic, must be ordered:
//   - by __syncthreads, for threads of one block;
//   - by __syncwarp, for threads of one warp (shuffles and votes move values but order no memory);
//   - by the end of the launch, for global memory. Nothing orders two blocks of one launch.
// It also reports reads of shared memory that its block has not written.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <unordered_map>

#include "machine.h"

#if defined(__SANITIZE_ADDRESS__)  // the other build of the kernels, which looks for other mistakes

void simt::shadow::begin_launch() {}
void simt::shadow::access(const volatile void*, std::size_t, Access, const void*) {}

#else

namespace simt::shadow {
namespace {

struct Stamp {
  std::uint32_t interval;  // 0: never
  std::uint32_t clock;
  std::uint32_t code;  // offset in this library of the instruction
  std::uint16_t thread;
  bool atomic;
};

// Reads in excess of these are dropped, except that a second warp always finds a place.
constexpr int kReads = 3;

struct Cell {
  Stamp write;
  Stamp read[kReads];
};

constexpr std::uintptr_t kPage = 4096;
constexpr std::size_t kPagesKept = 2048;  // 128 MiB of cells

// One cell for every 2^shift bytes: 4, until the first access that is no whole number of aligned words. (A power of
// two, because a division here takes as long as all else that is done for an access.)
struct Page {
  Cell* cells = nullptr;
  unsigned shift = 2;
};

std::unordered_map<std::uintptr_t, Page> pages;
std::uintptr_t last_number = 0;
Page* last_page = nullptr;

std::uintptr_t library_base() {
  static const std::uintptr_t base = [] {
    Dl_info info{};
    dladdr(reinterpret_cast<void*>(&library_base), &info);
    return reinterpret_cast<std::uintptr_t>(info.dli_fbase);
  }();
  return base;
}

Page& page_at(std::uintptr_t address, bool whole_words) {
  const std::uintptr_t number = address / kPage;
  if (number != last_number || !last_page) {
    last_number = number;
    last_page = &pages[number];
    if (!last_page->cells) last_page->cells = static_cast<Cell*>(std::calloc(kPage >> last_page->shift, sizeof(Cell)));
  }
  Page& page = *last_page;
  if (!whole_words && page.shift) {
    auto* bytes = static_cast<Cell*>(std::calloc(kPage, sizeof(Cell)));
    for (std::size_t i = 0; i < kPage; ++i) bytes[i] = page.cells[i / 4];
    std::free(page.cells);
    page = {bytes, 0};
  }
  return page;
}

// The line of the kernel that contains an instruction, by the tool that knows the debug information.
std::string line_of(std::uint32_t code) {
  Dl_info info{};
  dladdr(reinterpret_cast<void*>(&library_base), &info);
  char command[4096];
  std::snprintf(command, sizeof command, "addr2line -s -e '%s' 0x%x 2>/dev/null", info.dli_fname, code - 1);
  char line[512] = "";
  if (FILE* pipe = popen(command, "r")) {
    if (!std::fgets(line, sizeof line, pipe)) line[0] = 0;
    pclose(pipe);
  }
  std::string found(line);
  found = found.substr(0, found.find_first_of(" \n"));
  if (!found.empty() && found[0] != '?') return found;
  std::snprintf(line, sizeof line, "offset 0x%x", code - 1);
  return line;
}

// Did `earlier` happen before what the running thread does now, whatever the schedule?
bool ordered(const Stamp& earlier, bool shared) {
  if (earlier.interval == 0 || earlier.thread == machine.current) {
    // The same number in another block is another thread.
    return earlier.interval == 0 || shared || earlier.interval < machine.first_of_launch ||
           earlier.interval >= machine.first_of_block;
  }
  if (earlier.interval == machine.interval)
    return earlier.thread / kWarp == machine.current / kWarp &&
           earlier.clock < machine.seen[machine.current][earlier.thread % kWarp];
  if (shared) return true;  // blocks have shared memory of their own
  return earlier.interval < machine.first_of_launch || earlier.interval >= machine.first_of_block;
}

std::string place(std::uintptr_t address) {
  const auto* p = reinterpret_cast<const char*>(address);
  if (machine.dynamic_shared.holds(p))
    return "byte " + std::to_string(p - machine.dynamic_shared.begin) + " of dynamic shared memory";
  return machine.static_shared.holds(p) ? "static shared memory" : "global memory";
}

[[noreturn]] void report_race(std::uintptr_t address, const Stamp& earlier, bool earlier_writes, bool writes,
                              const Stamp& now) {
  const bool same_block = earlier.interval >= machine.first_of_block;
  stop("race on " + place(address) + ": " + (writes ? "writes" : "reads") + " at " + line_of(now.code) +
       " what thread " + text(thread_index(earlier.thread)) + (same_block ? "" : " of another block") +
       (earlier_writes ? " wrote at " : " read at ") + line_of(earlier.code) + ", and nothing orders the two");
}

// The same warp of the same block, as far as a stamp tells.
bool same_warp(const Stamp& a, const Stamp& b) {
  return a.thread / kWarp == b.thread / kWarp &&
         (a.interval >= machine.first_of_block) == (b.interval >= machine.first_of_block);
}

void record_read(Cell& cell, const Stamp& now, bool shared) {
  for (Stamp& read : cell.read) {
    // A read that is ordered before this one is implied by it, unless it was the stricter one of the two.
    if (ordered(read, shared) && (!now.atomic || read.atomic || read.interval < machine.first_of_block)) {
      read = now;
      return;
    }
  }
  Stamp& last = cell.read[kReads - 1];
  if (same_warp(cell.read[0], last) && !same_warp(cell.read[0], now)) last = now;
}

void check(std::uintptr_t address, Cell& cell, bool writes, const Stamp& now, bool shared) {
  if (cell.write.interval && !(cell.write.atomic && now.atomic) && !ordered(cell.write, shared))
    report_race(address, cell.write, true, writes, now);
  if (shared && !writes && cell.write.interval < machine.first_of_block)
    stop("reads " + place(address) + " at " + line_of(now.code) + ", which its block has not written");
  if (!writes) {
    record_read(cell, now, shared);
    return;
  }
  for (const Stamp& read : cell.read)
    if (!(read.atomic && now.atomic) && !ordered(read, shared)) report_race(address, read, false, true, now);
  cell.write = now;
}

}  // namespace

void begin_launch() {
  if (pages.size() < kPagesKept) return;
  for (auto& [number, page] : pages) std::free(page.cells);
  pages.clear();
  last_page = nullptr;
}

void access(const volatile void* pointer, std::size_t bytes, Access kind, const void* code) {
  const auto address = reinterpret_cast<std::uintptr_t>(pointer);
  const auto stack = reinterpret_cast<std::uintptr_t>(machine.thread[machine.current].stack);
  if (address - stack < kStackBytes) return;
  machine.running = false;  // nothing below is a kernel's doing
  const Stamp now{machine.interval, machine.clock[machine.current],
                  static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(code) - library_base()),
                  static_cast<std::uint16_t>(machine.current), kind >= Access::kAtomicRead};
  const bool dynamic = machine.dynamic_shared.holds(pointer);
  if (!dynamic && machine.dynamic_guard.holds(pointer))
    stop("out of bounds: touches byte " +
         std::to_string(static_cast<std::ptrdiff_t>(address) -
                        reinterpret_cast<std::ptrdiff_t>(machine.dynamic_shared.begin)) +
         " of " + std::to_string(machine.dynamic_shared.end - machine.dynamic_shared.begin) +
         " bytes of dynamic shared memory at " + line_of(now.code));
  const bool shared = dynamic || machine.static_shared.holds(pointer);
  const bool writes = kind == Access::kWrite || kind == Access::kAtomicWrite;
  const bool whole_words = (address | bytes) % 4 == 0;
  for (std::uintptr_t at = address; at < address + bytes;) {
    const Page& page = page_at(at, whole_words);
    check(at, page.cells[at % kPage >> page.shift], writes, now, shared);
    at += std::size_t{1} << page.shift;
  }
  machine.running = true;
}

}  // namespace simt::shadow

// The compiler's side of ThreadSanitizer.
using simt::machine;
using simt::shadow::access;
using simt::shadow::Access;

#define SIMT_ON_ACCESS(pointer, bytes, kind) \
  if (machine.running) access(pointer, bytes, kind, __builtin_return_address(0))

#define SIMT_HOOKS(bytes)                       \
  void __tsan_read##bytes(void* p) {            \
    SIMT_ON_ACCESS(p, bytes, Access::kRead);    \
  }                                             \
  void __tsan_write##bytes(void* p) {           \
    SIMT_ON_ACCESS(p, bytes, Access::kWrite);   \
  }                                             \
  void __tsan_unaligned_read##bytes(void* p) {  \
    SIMT_ON_ACCESS(p, bytes, Access::kRead);    \
  }                                             \
  void __tsan_unaligned_write##bytes(void* p) { \
    SIMT_ON_ACCESS(p, bytes, Access::kWrite);   \
  }                                             \
  void __tsan_volatile_read##bytes(void* p) {   \
    SIMT_ON_ACCESS(p, bytes, Access::kRead);    \
  }                                             \
  void __tsan_volatile_write##bytes(void* p) {  \
    SIMT_ON_ACCESS(p, bytes, Access::kWrite);   \
  }

// Host code of the same files (shared_ptr in PyTorch's headers) uses the atomics; kernels have CUDA's own.
#define SIMT_ATOMICS(bits, type)                                                                           \
  type __tsan_atomic##bits##_load(const volatile type* p, int) {                                           \
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);                                                           \
  }                                                                                                        \
  void __tsan_atomic##bits##_store(volatile type* p, type v, int) {                                        \
    __atomic_store_n(p, v, __ATOMIC_SEQ_CST);                                                              \
  }                                                                                                        \
  type __tsan_atomic##bits##_exchange(volatile type* p, type v, int) {                                     \
    return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST);                                                    \
  }                                                                                                        \
  type __tsan_atomic##bits##_fetch_add(volatile type* p, type v, int) {                                    \
    return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST);                                                     \
  }                                                                                                        \
  type __tsan_atomic##bits##_fetch_sub(volatile type* p, type v, int) {                                    \
    return __atomic_fetch_sub(p, v, __ATOMIC_SEQ_CST);                                                     \
  }                                                                                                        \
  bool __tsan_atomic##bits##_compare_exchange_strong(volatile type* p, type* expected, type v, int, int) { \
    return __atomic_compare_exchange_n(p, expected, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);         \
  }

extern "C" {
SIMT_HOOKS(1)
SIMT_HOOKS(2)
SIMT_HOOKS(4)
SIMT_HOOKS(8)
SIMT_HOOKS(16)
SIMT_ATOMICS(8, std::uint8_t)
SIMT_ATOMICS(32, std::uint32_t)
SIMT_ATOMICS(64, std::uint64_t)
void __tsan_read_range(void* p, std::size_t bytes) {
  SIMT_ON_ACCESS(p, bytes, Access::kRead);
}
void __tsan_write_range(void* p, std::size_t bytes) {
  SIMT_ON_ACCESS(p, bytes, Access::kWrite);
}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_init() {}
}

#endif
