// A kernel as the interpreter runs it: the PTX that nvcc made of it, with operands as numbers of registers.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace ptx {

constexpr int kWarpSize = 32;
using Mask = std::uint32_t;  // one bit a lane
constexpr Mask kAllLanes = 0xffffffffu;

// .b types are read as unsigned integers of that size.
enum class Type : std::uint8_t {
  kNone,
  kPredicate,
  kU8,
  kU16,
  kU32,
  kU64,
  kS8,
  kS16,
  kS32,
  kS64,
  kF16,
  kBF16,
  kF32,
  kF64
};
enum class Space : std::uint8_t { kGeneric, kGlobal, kShared, kLocal, kParameter };

// What an instruction costs: the pipe of the hardware that it needs. The names are in counts.cpp.
enum class Kind : std::uint8_t {
  kFloat32,
  kFloat64,
  kInteger32,
  kInteger64,
  kConvert,    // between 32-bit types
  kConvert64,  // to or from a 64-bit type
  kSpecial,    // division, square root, reciprocal of float32
  kSpecial64,  // and of float64
  kDivide,     // of integers: a subroutine
  kDivide64,
  kPredicate,
  kMove,
  kBranch,
  kLoadGlobal,
  kStoreGlobal,
  kAtomicGlobal,
  kLoadShared,
  kStoreShared,
  kAtomicShared,
  kCollective,
  kBarrier,
  kParameter,
  kNumber
};

enum class Control : std::uint8_t { kNone, kBranch, kReturn, kBarrier, kCollective };

class Warp;

struct Instruction {
  // What the lanes of `active` do; null where the scheduler alone acts (branch, return, barrier).
  using Execute = void (*)(Warp& warp, const Instruction& instruction, Mask active);
  Execute execute = nullptr;
  Control control = Control::kNone;
  Kind kind = Kind::kMove;
  Type type = Type::kNone;    // the first type in the mnemonic
  Type source = Type::kNone;  // the second
  Space space = Space::kGeneric;
  std::uint8_t operation = 0;  // which comparison, atomic, collective, rounding
  std::uint8_t combine = 0;    // setp: how its result joins a further predicate
  std::uint8_t width = 1;      // elements of a vector access
  bool relaxed = false;        // volatile, or an atomic: excused from the search for races
  bool constant = false;       // a load of what no thread writes
  bool guard_negated = false;
  bool negated = false;  // a predicate operand with an exclamation mark
  int guard = -1;        // register of the predicate, or -1
  int to[4] = {-1, -1, -1, -1};
  int from[5] = {-1, -1, -1, -1, -1};
  std::int64_t offset = 0;                 // of an address
  std::uint64_t mask = ~std::uint64_t{0};  // bits of the destination register
  int target = -1;
  int location = 0;   // in Module::locations
  int statement = 0;  // in Kernel::statements
};

// A register that is not only written by the kernel.
struct Preset {
  enum class What : std::uint8_t { kConstant, kSpecial } what;
  int slot;
  std::uint64_t value;  // the constant, or a Special
};

enum Special : int {
  kThreadX,
  kThreadY,
  kThreadZ,
  kBlockSizeX,
  kBlockSizeY,
  kBlockSizeZ,
  kBlockX,
  kBlockY,
  kBlockZ,
  kGridX,
  kGridY,
  kGridZ,
  kLane,
  kWarp,
  kLanesBelow,
  kLanesUpTo,
  kThisLane,
  kLanesAbove,
  kLanesFrom
};

struct Parameter {
  std::string name;
  int offset, bytes;
};

struct Location {
  std::string file;  // from csrc/ or tests/ on
  int line = 0;
};

struct Module;

struct Kernel {
  std::string symbol;   // as nvcc mangled it
  std::string name;     // as a person writes it: select_candidates<2048>
  std::string refusal;  // why the interpreter cannot run it, if so
  const Module* module = nullptr;
  std::vector<Instruction> code;
  std::vector<std::string> statements;
  std::vector<Preset> presets;
  std::vector<Parameter> parameters;
  int parameter_bytes = 0, registers = 0, static_shared = 0, local_bytes = 0;
};

struct Module {
  std::vector<std::unique_ptr<Kernel>> kernels;
  std::vector<Location> locations;
  struct Variable {
    std::string name;
    std::vector<std::uint8_t> bytes;
  };
  std::vector<std::unique_ptr<Variable>> variables;  // in global memory
};

// Reads what nvcc wrote for one source file. Throws std::runtime_error where it is no PTX.
std::unique_ptr<Module> parse(const std::string& text);

// One statement of a kernel's body, without its semicolon, as an instruction. `registers` knows the operands.
class Operands;
Instruction decode(const std::string& statement, Operands& operands);

int bytes_of(Type type);
Type type_named(const std::string& name);  // kNone if there is no such type

}  // namespace ptx
