// Runs a grid: blocks one after the other, the threads of a block as fibres that give way at barriers, warp
// collectives and, under a seeded schedule, at atomics.
#include <link.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <numeric>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "machine.h"
#include "pretended.h"

// Kernels see these as constants (intrinsics.h), which they are for a thread: the compiler may keep them in registers.
// Only this file knows that they change from one thread to the next.
uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace simt {

Machine machine;

namespace {

constexpr char kPoison = static_cast<char>(0xff);  // as float: NaN; as index: -1
constexpr std::size_t kGuardBytes = 16 * 1024;

Context host;
const std::function<void()>* body = nullptr;
std::uint64_t schedule_seed = 0;
std::set<std::string> launched;  // names of kernels
std::uint64_t random_state = 0;
[[maybe_unused]] thread_local char thread_local_anchor;  // makes sure that this library has a thread-local segment

std::uint64_t next_random() {  // splitmix64
  std::uint64_t z = (random_state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

template <class T>
void shuffle(std::vector<T>& items) {
  for (std::size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[next_random() % i]);
}

void give_way() {
  machine.running = false;
  switch_context(machine.thread[machine.current].context, host);
  machine.running = true;
}

void thread_main() {
  entered(host);
  machine.running = true;
  try {
    (*body)();
  } catch (const std::exception& e) {
    stop(std::string("threw an exception: ") + e.what());
  }
  machine.thread[machine.current].state = State::kExited;
  give_way();
}

void run_block(std::vector<unsigned>& order) {
  blockIdx = machine.block;
  machine.first_of_block = ++machine.interval;
  std::fill(machine.clock, machine.clock + machine.threads, 1u);
  std::memset(machine.seen, 0, sizeof machine.seen[0] * machine.threads);
  if (machine.static_shared.begin) std::fill(machine.static_shared.begin, machine.static_shared.end, kPoison);
  std::fill(machine.dynamic_shared.begin, machine.dynamic_shared.end, kPoison);
  for (unsigned t = 0; t < machine.threads; ++t) {
    Thread& thread = machine.thread[t];
    if (!thread.stack) thread.stack = new_stack();
    prepare(thread.context, thread.stack, thread_main);
    thread.index = thread_index(t);
    thread.state = State::kReady;
    machine.arrived[t / kWarp] = 0;
    machine.present[t / kWarp] = ~0u >> (kWarp - 1 - t % kWarp);
  }
  unsigned exited = 0, at_barrier = 0;
  while (exited < machine.threads) {
    bool progress = false;
    if (schedule_seed) shuffle(order);
    for (unsigned t : order) {
      Thread& thread = machine.thread[t];
      if (thread.state != State::kReady) continue;
      progress = true;
      threadIdx = thread.index;
      machine.current = t;
      switch_context(host, thread.context);
      if (!machine.error.empty()) throw std::runtime_error(machine.error);
      exited += thread.state == State::kExited;
      if (thread.state == State::kAtBarrier && ++at_barrier == machine.threads) {
        release_barrier();
        at_barrier = 0;
      }
      if (thread.state == State::kAtCollective) lane_arrived(t);
      if (thread.state == State::kExited) lane_exited(t);
    }
    if (!progress) explain_deadlock();
  }
}

// The kernels' static __shared__ variables are thread-local variables of this library (intrinsics.h), and nothing else
// in it is: so its thread-local segment is the block's static shared memory. AddressSanitizer guards no thread-local
// variables, so under it they are ordinary static ones, which it surrounds with red zones and nobody poisons.
Memory find_static_shared() {
  Memory found;
#if !defined(__SANITIZE_ADDRESS__)
  struct Search {
    char* anchor;
    Memory* found;
  } search{&thread_local_anchor, &found};
  dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* data) {
        auto* s = static_cast<Search*>(data);
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          if (info->dlpi_phdr[i].p_type != PT_TLS || !info->dlpi_tls_data) continue;
          Memory segment{static_cast<char*>(info->dlpi_tls_data),
                         static_cast<char*>(info->dlpi_tls_data) + info->dlpi_phdr[i].p_memsz};
          if (segment.holds(s->anchor)) *s->found = segment;
        }
        return 0;
      },
      &search);
#endif
  return found;
}

void check_limits(const dim3& grid, const dim3& block, std::size_t bytes) {
  const auto refuse = [](const std::string& what) {
    throw std::runtime_error(std::string(machine.kernel) + ": cannot be launched: " + what);
  };
  const std::uint64_t threads = std::uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || block.x > 1024 || block.y > 1024 || block.z > 64 || threads > kMaxThreads)
    refuse("a block of " + text(block) + " threads, allowed are 1 to 1024");
  const unsigned across = device.most_blocks_across;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > across || grid.z > across) {
    const std::string most = std::to_string(across);
    refuse("a grid of " + text(grid) + " blocks, allowed are 1 to (2147483647, " + most + ", " + most + ")");
  }
  if (bytes > kMaxSharedBytes)
    refuse(std::to_string(bytes) + " bytes of dynamic shared memory, allowed are " + std::to_string(kMaxSharedBytes));
}

}  // namespace

void stop(const std::string& message) {
  machine.running = false;
  machine.error = std::string(machine.kernel) + ", block " + text(machine.block) + ", thread " +
                  text(machine.thread[machine.current].index) + ": " + message;
  switch_context(machine.thread[machine.current].context, host);
  std::abort();  // a stopped thread is never continued
}

void fail(const char* message, const Where& where) {
  stop(std::string(message) + " (" + text(where) + ")");
}

void set_schedule(std::uint64_t seed) {
  schedule_seed = seed;
}

unsigned lane() {
  return machine.current % kWarp;
}

void* dynamic_shared() {
  return machine.dynamic_shared.begin;
}

int barrier(Barrier kind, const char* name, int predicate, const Where& where) {
  Thread& thread = machine.thread[machine.current];
  thread.state = State::kAtBarrier;
  thread.barrier = kind;
  thread.name = name;
  thread.value = predicate != 0;
  thread.where = where;
  give_way();
  return static_cast<int>(thread.result);
}

std::uint64_t collective(Collective kind, const char* name, unsigned mask, std::uint64_t value, unsigned source,
                         const Where& where) {
  Thread& thread = machine.thread[machine.current];
  thread.state = State::kAtCollective;
  thread.collective = kind;
  thread.name = name;
  thread.mask = mask;
  thread.value = value;
  thread.source = source;
  thread.where = where;
  if (!(mask >> lane() & 1)) fail("wrong mask: it leaves out the caller's own lane", where);
  give_way();
  return thread.result;
}

void atomic_access(const volatile void* address, std::size_t bytes, bool writes, const Where& where) {
  if (reinterpret_cast<std::uintptr_t>(address) % bytes) fail("atomic on a misaligned address", where);
  shadow::access(address, bytes, writes ? shadow::Access::kAtomicWrite : shadow::Access::kAtomicRead,
                 __builtin_return_address(0));
  if (schedule_seed && next_random() % 4 == 0) give_way();
}

void launch(const char* kernel, dim3 grid, dim3 block, std::size_t dynamic_shared_bytes,
            const std::function<void()>& thread_body) {
  static std::mutex one_at_a_time;
  const std::lock_guard<std::mutex> lock(one_at_a_time);
  machine.kernel = kernel;
  launched.insert(kernel);
  check_limits(grid, block, dynamic_shared_bytes);
  if (!machine.thread) machine.thread = new Thread[kMaxThreads];
  machine.grid_size = gridDim = grid;
  machine.block_size = blockDim = block;
  machine.threads = block.x * block.y * block.z;
  machine.error.clear();
  machine.static_shared = find_static_shared();
  body = &thread_body;
  random_state = schedule_seed;

  // The detector watches a guard zone around the arena; AddressSanitizer wants an allocation of the exact size.
#if defined(__SANITIZE_ADDRESS__)
  const std::size_t guard = 0;
#else
  const std::size_t guard = kGuardBytes;
#endif
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  void* memory = nullptr;
  if (posix_memalign(&memory, 128, dynamic_shared_bytes + 2 * guard)) throw std::bad_alloc();
  const std::unique_ptr<void, Free> owner(memory);
  char* arena = static_cast<char*>(memory) + guard;
  machine.dynamic_shared = {arena, arena + dynamic_shared_bytes};
  machine.dynamic_guard = {arena - guard, arena + dynamic_shared_bytes + guard};

  machine.first_of_launch = ++machine.interval;
  shadow::begin_launch();
  std::vector<unsigned> order(machine.threads);
  std::iota(order.begin(), order.end(), 0u);
  std::vector<std::uint64_t> blocks(std::uint64_t{grid.x} * grid.y * grid.z);
  std::iota(blocks.begin(), blocks.end(), 0u);
  if (schedule_seed) shuffle(blocks);
  try {
    for (std::uint64_t b : blocks) {
      machine.block = {static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                       static_cast<unsigned>(b / grid.x / grid.y)};
      run_block(order);
    }
  } catch (...) {
    for (unsigned t = 0; t < machine.threads; ++t)
      if (machine.thread[t].state != State::kExited && machine.thread[t].stack) forget_frames(machine.thread[t].stack);
    throw;
  }
}

}  // namespace simt

// For the Python tests: the order of threads and blocks; the kernels launched so far, a line each.
extern "C" __attribute__((visibility("default"))) void simt_set_schedule(std::uint64_t seed) {
  simt::set_schedule(seed);
}

extern "C" __attribute__((visibility("default"))) const char* simt_launched() {
  static std::string lines;
  lines.clear();
  for (const std::string& name : simt::launched) lines += name + '\n';
  return lines.c_str();
}
