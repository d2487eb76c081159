// Names of operands and the registers they stand for. Constants, special registers and addresses are registers as
// well, filled before the kernel runs: an instruction then knows one kind of operand only.
#pragma once
#include <string>
#include <vector>

#include "kernel.h"

namespace ptx {

std::string trimmed(const std::string& text);
std::vector<std::string> split(const std::string& text, char separator);  // not inside brackets
std::uint64_t immediate(const std::string& text);                         // 7, -1, 0x1F, 0f3F800000, 0d3FF0...

class Operands {
public:
  explicit Operands(Kernel& kernel) : kernel_(kernel) {}

  void declare_registers(const std::string& declaration);  // ".b32 %r<5>, %r9"
  void name_constant(const std::string& name, std::int64_t value);
  void name_dynamic_shared(const std::string& name) { dynamic_shared_ = name; }
  void finish();  // now the place of the dynamic shared memory is known

  int number(const std::string& text);  // of a register, for anything that can be read
  std::uint64_t mask_of(int slot) const { return masks_[slot]; }
  // "[%rd1+8]": the register of the address; adds to the instruction's offset.
  int address(const std::string& text, Instruction& instruction);

private:
  int fresh(std::uint64_t mask);
  int constant(std::uint64_t value);

  Kernel& kernel_;
  std::vector<std::uint64_t> masks_;  // bits that each register has
  std::map<std::string, int> registers_;
  std::map<std::string, std::int64_t> named_;
  std::map<std::uint64_t, int> constants_;
  std::map<int, int> specials_;
  std::string dynamic_shared_;
  int dynamic_slot_ = -1;
};

}  // namespace ptx
