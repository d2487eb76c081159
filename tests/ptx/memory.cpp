// Loads, stores and atomics: what each request moves, and what is wrong with it. Global memory is the host's; a kernel
// may touch what PyTorch has allocated and nothing else, to the byte.
#include <algorithm>
#include <cstring>
#include <map>

#include "machine.h"

namespace ptx {
namespace {

using Addresses = std::uint64_t[kWarpSize];

// Generic addresses that point to shared memory become offsets into it. A request does not mix the two.
Space resolve(Warp& warp, const Instruction& in, Mask active, Addresses& addresses) {
  const std::uint64_t* base = warp.lanes(in.from[0]);
  for_lanes(active, [&](int lane) { addresses[lane] = base[lane] + static_cast<std::uint64_t>(in.offset); });
  if (in.space != Space::kGeneric) return in.space;
  bool any = false, all = true;
  for_lanes(active, [&](int lane) {
    const bool is_shared = addresses[lane] >= kSharedWindow;
    any |= is_shared;
    all &= is_shared;
  });
  if (!any) return Space::kGlobal;
  if (!all) warp.fail(in, "lanes of one access mean shared and global memory");
  for_lanes(active, [&](int lane) { addresses[lane] -= kSharedWindow; });
  return Space::kShared;
}

void check_global(Warp& warp, const Instruction& in, Mask active, const Addresses& addresses, std::uint64_t bytes) {
  Launch& launch = *warp.launch;
  std::uint64_t low = ~std::uint64_t{0}, high = 0;
  for_lanes(active, [&](int lane) {
    low = std::min(low, addresses[lane]);
    high = std::max(high, addresses[lane]);
  });
  const auto holds = [&](std::size_t range, std::uint64_t begin, std::uint64_t end) {
    return launch.ranges[range].begin <= begin && end <= launch.ranges[range].end;
  };
  if (holds(launch.last_range, low, high + bytes)) return;
  for_lanes(active, [&](int lane) {
    const std::uint64_t address = addresses[lane];
    const auto after = std::upper_bound(launch.ranges.begin(), launch.ranges.end(), address,
                                        [](std::uint64_t a, const Range& range) { return a < range.begin; });
    const auto range = static_cast<std::size_t>(after - launch.ranges.begin()) - 1;
    if (after == launch.ranges.begin() || !holds(range, address, address + bytes)) {
      warp.fail(in, "out of bounds: " + std::to_string(bytes) + " bytes of global memory that no tensor has");
    }
    launch.last_range = range;
  });
}

// Sectors that the request touches, and how many bytes of them it asked for.
void count_global(Warp& warp, const Instruction& in, Mask active, const Addresses& addresses, std::uint64_t bytes) {
  Launch& launch = *warp.launch;
  InstructionCounts& counts = launch.counts.instructions[&in - launch.kernel.code.data()];
  std::uint64_t sorted[kWarpSize];
  int lanes = 0;
  bool ascending = true;
  for_lanes(active, [&](int lane) {
    ascending &= lanes == 0 || sorted[lanes - 1] <= addresses[lane];
    sorted[lanes++] = addresses[lane];
  });
  if (!ascending) std::sort(sorted, sorted + lanes);
  const Range& range = launch.ranges[launch.last_range];
  std::uint64_t last_sector = ~std::uint64_t{0}, distinct = 0, sectors = 0;
  // Where the slowest lane is answered: by the block's own multiprocessor if it still has the sector. What it has
  // brought first, it gives up first.
  Level level = in.relaxed ? Level::kSecond : Level::kFirst;
  for (int i = 0; i < lanes; ++i) {
    if (i > 0 && sorted[i] == sorted[i - 1]) continue;
    ++distinct;
    const std::uint64_t sector = sorted[i] / 32;  // an aligned access of up to 32 bytes lies in one
    if (sector == last_sector) continue;
    last_sector = sector;
    ++sectors;
    if (sorted[i] < range.begin || sorted[i] >= range.end) continue;  // a request over several tensors: rare
    std::vector<Touch>& seen = launch.touched[launch.last_range];
    if (seen.empty()) seen.resize(range.end / 32 - range.begin / 32 + 1);
    Block& block = *warp.block;
    Touch& last = seen[sector - range.begin / 32];
    const bool kept = last.block == block.number && block.brought - last.before <= launch.first_cache;
    launch.counts.touched += last.block == 0;
    launch.counts.fetched += !kept || in.relaxed || in.kind != Kind::kLoadGlobal;
    if (kept) continue;
    level = std::max(level, last.block == 0 ? Level::kMemory : Level::kSecond);
    last = {block.number, block.brought++};
  }
  counts.sectors += sectors;
  warp.timeline.answered(level, (sectors + 3) / 4);
  counts.used += distinct * bytes;
  if (in.kind == Kind::kAtomicGlobal) counts.meetings += static_cast<std::uint64_t>(lanes) - distinct;
}

// Passes over the 32 banks of 4 bytes. Lanes that want the same word share one; accesses of 8 (16) bytes go by halves
// (quarters) of a warp.
void count_shared(Warp& warp, const Instruction& in, Mask active, const Addresses& addresses, std::uint64_t bytes) {
  Launch& launch = *warp.launch;
  InstructionCounts& counts = launch.counts.instructions[&in - launch.kernel.code.data()];
  const int words = std::max(1, static_cast<int>(bytes / 4)), together = kWarpSize / words;
  std::uint64_t waves = 0;
  for (int first = 0; first < kWarpSize; first += together) {
    std::uint64_t wanted[kWarpSize];
    int number = 0;
    std::uint8_t bank[32] = {}, most = 0;
    for (int lane = first; lane < first + together; ++lane) {
      if (!(active >> lane & 1)) continue;
      for (int w = 0; w < words; ++w) {
        const std::uint64_t word = addresses[lane] / 4 + w;
        if (bank[word % 32] > 0 && std::find(wanted, wanted + number, word) != wanted + number) continue;
        wanted[number++] = word;
        most = std::max(most, ++bank[word % 32]);
      }
    }
    waves += most;
  }
  counts.waves += waves;
  warp.timeline.answered(Level::kShared, waves);
  if (in.kind == Kind::kAtomicShared || in.kind == Kind::kAtomicGlobal) {  // the latter by a generic address
    Addresses sorted;
    int lanes = 0;
    for_lanes(active, [&](int lane) { sorted[lanes++] = addresses[lane]; });
    std::sort(sorted, sorted + lanes);
    counts.meetings += static_cast<std::uint64_t>(lanes - (std::unique(sorted, sorted + lanes) - sorted));
  }
}

// Bounds, words that nobody has written, and races between warps since the last barrier. Relaxed accesses and
// accesses of less than a word are excused from the search for races (tests/simt looks at each byte).
void check_shared(Warp& warp, const Instruction& in, Mask active, const Addresses& addresses, std::uint64_t bytes,
                  bool writes) {
  Block& block = *warp.block;
  const bool excused = in.relaxed || bytes < 4;
  const bool reads = in.kind != Kind::kStoreShared && in.kind != Kind::kStoreGlobal;
  for_lanes(active, [&](int lane) {
    const std::uint64_t begin = addresses[lane];
    if (begin + bytes > block.shared.size()) {
      warp.fail(in, "out of bounds: byte " + std::to_string(begin) + " of " + std::to_string(block.shared.size()) +
                        " bytes of shared memory");
    }
    for (std::uint64_t word = begin / 4; word <= (begin + bytes - 1) / 4; ++word) {
      SharedWord& seen = block.words[word];
      if (reads && seen.written == 0) warp.fail(in, "reads shared memory that its block has not written");
      if (!excused && seen.written == block.interval && seen.writer != warp.index) {
        warp.fail(in,
                  "race on shared memory: warp " + std::to_string(seen.writer) + " has written it since the barrier");
      }
      if (!excused && writes && seen.read == block.interval && seen.reader != warp.index) {
        warp.fail(in, "race on shared memory: another warp has read it since the barrier");
      }
      if (writes) {
        seen.written = block.interval;
        seen.writer = warp.index;
      } else {
        seen.reader = seen.read == block.interval && seen.reader != warp.index ? kSeveral : warp.index;
        seen.read = block.interval;
      }
    }
  });
}

// Where lane's bytes are on the host, after all checks.
class Access {
public:
  Access(Warp& warp, const Instruction& in, Mask active, std::uint64_t bytes, bool writes) : warp_(warp) {
    space_ = resolve(warp, in, active, addresses_);
    for_lanes(active, [&](int lane) {
      if (addresses_[lane] % bytes != 0) warp.fail(in, "misaligned access of " + std::to_string(bytes) + " bytes");
    });
    if (space_ == Space::kGlobal) {
      check_global(warp, in, active, addresses_, bytes);
      count_global(warp, in, active, addresses_, bytes);
    } else if (space_ == Space::kShared) {
      check_shared(warp, in, active, addresses_, bytes, writes);
      count_shared(warp, in, active, addresses_, bytes);
    } else if (space_ == Space::kLocal) {
      warp.local.resize(static_cast<std::size_t>(warp.launch->kernel.local_bytes) * kWarpSize);
    }
  }

  std::uint8_t* at(int lane) {
    switch (space_) {
      case Space::kShared:
        return warp_.block->shared.data() + addresses_[lane];
      case Space::kLocal:
        return warp_.local.data() + std::size_t(warp_.launch->kernel.local_bytes) * lane + addresses_[lane];
      case Space::kParameter:
        return warp_.launch->parameters.data() + addresses_[lane];
      default:
        return reinterpret_cast<std::uint8_t*>(addresses_[lane]);
    }
  }

private:
  Warp& warp_;
  Space space_;
  Addresses addresses_;
};

template <class T>
T read(const std::uint8_t* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

struct Load {
  template <class T>
  static void run(Warp& warp, const Instruction& in, Mask active) {
    Access access(warp, in, active, sizeof(T) * in.width, false);
    const std::uint64_t mask = in.mask;
    for (int i = 0; i < in.width; ++i) {
      if (in.to[i] < 0) continue;
      std::uint64_t* to = warp.lanes(in.to[i]);
      // A signed value fills a wider register with its sign.
      for_lanes(active, [&](int lane) {
        to[lane] =
            static_cast<std::uint64_t>(static_cast<std::int64_t>(read<T>(access.at(lane) + sizeof(T) * i))) & mask;
      });
    }
  }
};

struct Store {
  template <class T>
  static void run(Warp& warp, const Instruction& in, Mask active) {
    Access access(warp, in, active, sizeof(T) * in.width, true);
    for (int i = 0; i < in.width; ++i) {
      const std::uint64_t* from = warp.lanes(in.from[1 + i]);
      for_lanes(active, [&](int lane) {
        const T value = get<T>(from[lane]);
        std::memcpy(access.at(lane) + sizeof(T) * i, &value, sizeof value);
      });
    }
  }
};

enum AtomicOperation : std::uint8_t { kAdd, kMin, kMax, kExchange, kAnd, kOr, kXor, kSwapIfEqual };
const std::map<std::string, AtomicOperation> kAtomics = {
    {"add", kAdd}, {"min", kMin}, {"max", kMax}, {"exch", kExchange},
    {"and", kAnd}, {"or", kOr},   {"xor", kXor}, {"cas", kSwapIfEqual},
};

template <class T>
T after(int operation, T old, T operand, T replacement) {
  switch (operation) {
    case kAdd:
      return static_cast<T>(static_cast<std::make_unsigned_t<T>>(old) + static_cast<std::make_unsigned_t<T>>(operand));
    case kMin:
      return std::min(old, operand);
    case kMax:
      return std::max(old, operand);
    case kAnd:
      return static_cast<T>(old & operand);
    case kOr:
      return static_cast<T>(old | operand);
    case kXor:
      return static_cast<T>(old ^ operand);
    case kSwapIfEqual:
      return old == operand ? replacement : old;
    default:
      return operand;
  }
}

struct Atomic {
  template <class T>
  static void run(Warp& warp, const Instruction& in, Mask active) {
    Access access(warp, in, active, sizeof(T), true);
    for_lanes(active, [&](int lane) {
      const T old = read<T>(access.at(lane));
      const T replacement = in.from[2] >= 0 ? get<T>(warp.lanes(in.from[2])[lane]) : T{0};
      const T value = after(in.operation, old, get<T>(warp.lanes(in.from[1])[lane]), replacement);
      std::memcpy(access.at(lane), &value, sizeof value);
      if (in.to[0] >= 0) warp.lanes(in.to[0])[lane] = put<T>(old);
    });
  }
};

// Floats move as their bits.
Type as_bits(Type type) {
  switch (type) {
    case Type::kF16:
    case Type::kBF16:
      return Type::kU16;
    case Type::kF32:
      return Type::kU32;
    case Type::kF64:
      return Type::kU64;
    default:
      return type;
  }
}

}  // namespace

Instruction::Execute load(Type type) {
  return for_integer<Load>(as_bits(type));
}
Instruction::Execute store(Type type) {
  return for_integer<Store>(as_bits(type));
}

// Not on floats: their order would decide the result.
Instruction::Execute atomic(const Mnemonic& mnemonic, Instruction& in) {
  for (const std::string& modifier : mnemonic.modifiers) {
    if (const auto found = kAtomics.find(modifier); found != kAtomics.end()) {
      in.operation = found->second;
      return for_integer<Atomic>(in.type);
    }
  }
  return nullptr;
}

}  // namespace ptx
