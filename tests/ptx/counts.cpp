#include "counts.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <tuple>

namespace ptx {
namespace {

constexpr std::array<const char*, static_cast<int>(Kind::kNumber)> kKinds = {
    "float32",       "float64",     "integer32",    "integer64",     "convert",     "convert64",
    "special",       "special64",   "divide",       "divide64",      "predicate",   "move",
    "branch",        "load global", "store global", "atomic global", "load shared", "store shared",
    "atomic shared", "collective",  "barrier",      "parameter",
};

struct Line {
  InstructionCounts sum;
  int bytes = 0;  // of the widest access
};

void add(InstructionCounts& sum, const InstructionCounts& other) {
  sum.warps += other.warps;
  sum.lanes += other.lanes;
  sum.sectors += other.sectors;
  sum.used += other.used;
  sum.waves += other.waves;
  sum.divided += other.divided;
  sum.meetings += other.meetings;
}

// Counts by source line and kind of instruction.
void write_lines(std::ostream& out, const KernelCounts& counts) {
  const Kernel& kernel = *counts.kernel;
  std::map<std::tuple<int, Kind>, Line> lines;
  for (std::size_t i = 0; i < counts.instructions.size(); ++i) {
    const InstructionCounts& mine = counts.instructions[i];
    const Instruction& instruction = kernel.code[i];
    if (mine.warps == 0) continue;
    Line& line = lines[{instruction.location, instruction.kind}];
    add(line.sum, mine);
    const bool is_access = instruction.kind >= Kind::kLoadGlobal && instruction.kind <= Kind::kAtomicShared;
    if (is_access) line.bytes = std::max(line.bytes, bytes_of(instruction.type) * instruction.width);
  }
  const char* comma = "";
  for (const auto& [key, line] : lines) {
    const Location& at = kernel.module->locations[std::get<0>(key)];
    out << comma << "\n  {\"line\": \"" << at.file << ':' << at.line << "\", \"kind\": \""
        << kKinds[static_cast<int>(std::get<1>(key))] << "\", \"warps\": " << line.sum.warps
        << ", \"lanes\": " << line.sum.lanes << ", \"sectors\": " << line.sum.sectors << ", \"used\": " << line.sum.used
        << ", \"waves\": " << line.sum.waves << ", \"divided\": " << line.sum.divided
        << ", \"meetings\": " << line.sum.meetings << ", \"bytes\": " << line.bytes << '}';
    comma = ",";
  }
}

}  // namespace

KernelCounts& Counts::of(const Kernel& kernel) {
  KernelCounts& mine = kernels[kernel.symbol];
  mine.kernel = &kernel;
  mine.instructions.resize(kernel.code.size());
  return mine;
}

void Counts::write(std::ostream& out) const {
  out << "{\"allocations\": " << allocations << ", \"peak_bytes\": " << peak_bytes << ", \"events\": [";
  const char* comma = "";
  for (const Event& event : events) {
    out << comma << "\n {\"kind\": \"" << event.kind << "\", \"name\": \"" << event.name << '"';
    for (const auto& [name, value] : event.values) out << ", \"" << name << "\": " << value;
    out << '}';
    comma = ",";
  }
  out << "],\n\"kernels\": [";
  comma = "";
  for (const auto& [symbol, counts] : kernels) {
    out << comma << "\n {\"name\": \"" << counts.kernel->name << "\", \"launches\": " << counts.launches
        << ", \"blocks\": " << counts.blocks << ", \"warps\": " << counts.warps << ", \"touched\": " << counts.touched
        << ", \"fetched\": " << counts.fetched << ", \"longest_block\": " << counts.longest_block
        << ", \"occupied\": " << std::llround(counts.occupied) << ", \"lines\": [";
    write_lines(out, counts);
    out << "]}";
    comma = ",";
  }
  out << "]}\n";
}

Counts& counts() {
  static Counts all;
  return all;
}

}  // namespace ptx
