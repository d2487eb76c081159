// The mnemonic of a statement and its operands, as an instruction. Fails for what the interpreter does not know: a
// kernel that needs it is then refused when it is launched.
#include <algorithm>
#include <stdexcept>

#include "machine.h"
#include "operands.h"

namespace ptx {

bool Mnemonic::has(const char* modifier) const {
  return std::find(modifiers.begin(), modifiers.end(), modifier) != modifiers.end();
}

namespace {

Kind kind_of_access(Space space, Kind global, Kind shared) {
  if (space == Space::kParameter) return Kind::kParameter;
  return space == Space::kShared ? shared : global;
}

bool is_64_bit(Type type) {
  return type != Type::kNone && bytes_of(type) == 8;
}

Kind kind_of(const Mnemonic& mnemonic, const Instruction& in) {
  const std::string& name = mnemonic.name;
  if (name == "ld" || name == "ldu") return kind_of_access(in.space, Kind::kLoadGlobal, Kind::kLoadShared);
  if (name == "st") return kind_of_access(in.space, Kind::kStoreGlobal, Kind::kStoreShared);
  if (name == "atom" || name == "red") return kind_of_access(in.space, Kind::kAtomicGlobal, Kind::kAtomicShared);
  if (name == "bra" || name == "ret" || name == "exit") return Kind::kBranch;
  if (name == "bar" || name == "barrier") return mnemonic.has("warp") ? Kind::kCollective : Kind::kBarrier;
  if (in.control == Control::kCollective) return Kind::kCollective;
  if (name == "mov" || name == "cvta") return Kind::kMove;
  if (name == "setp" || name == "selp" || in.type == Type::kPredicate) return Kind::kPredicate;
  if (name == "cvt") {
    const auto is_float = [](Type type) { return type >= Type::kF16; };
    const bool is_64 = is_64_bit(in.type) || is_64_bit(in.source);
    if (!is_float(in.type) && !is_float(in.source)) return is_64 ? Kind::kMove : Kind::kInteger32;
    return is_64 ? Kind::kConvert64 : Kind::kConvert;
  }
  if (name == "div" || name == "rem") {
    if (in.type == Type::kF32) return Kind::kSpecial;
    return in.type == Type::kF64 ? Kind::kSpecial64 : is_64_bit(in.type) ? Kind::kDivide64 : Kind::kDivide;
  }
  for (const char* special : {"sqrt", "rcp", "rsqrt", "ex2", "lg2"}) {
    if (name == special) return in.type == Type::kF64 && !mnemonic.has("approx") ? Kind::kSpecial64 : Kind::kSpecial;
  }
  if (in.type == Type::kF32) return Kind::kFloat32;
  if (in.type == Type::kF64) return Kind::kFloat64;
  return is_64_bit(in.type) || mnemonic.has("wide") ? Kind::kInteger64 : Kind::kInteger32;
}

class Decoder {
public:
  Decoder(const std::string& statement, Operands& operands) : statement_(statement), operands_(operands) {}

  Instruction decode() {
    std::string text = statement_;
    if (text[0] == '@') text = guard(text);
    const std::size_t space = text.find_first_of(" \t");
    read_mnemonic(text.substr(0, space));
    arguments_ = space == std::string::npos ? std::vector<std::string>() : split(text.substr(space), ',');
    const std::string& name = mnemonic_.name;
    if (name == "bra") {
      in_.control = Control::kBranch;
    } else if (name == "ret" || name == "exit") {
      in_.control = Control::kReturn;
    } else if (name == "ld" || name == "ldu" || name == "st" || name == "atom" || name == "red") {
      memory();
    } else if (name == "membar" || name == "fence") {
      in_.execute = [](Warp&, const Instruction&, Mask) {};
    } else if (Instruction::Execute found = collective(mnemonic_, in_); found || in_.control == Control::kBarrier) {
      in_.execute = found;
      collective_operands();
    } else {
      values();
      in_.execute = arithmetic(mnemonic_, in_);
      if (!in_.execute) unsupported();
    }
    in_.kind = kind_of(mnemonic_, in_);
    return in_;
  }

private:
  [[noreturn]] void unsupported() const { throw std::runtime_error("unsupported instruction: " + statement_); }

  std::string guard(const std::string& text) {  // "@!%p1 bra $L"
    const std::size_t end = text.find_first_of(" \t");
    in_.guard_negated = text[1] == '!';
    in_.guard = operands_.number(text.substr(in_.guard_negated ? 2 : 1, end - (in_.guard_negated ? 2 : 1)));
    return trimmed(text.substr(end));
  }

  void read_mnemonic(const std::string& text) {
    std::vector<std::string> parts = split(text, '.');
    mnemonic_.name = parts.at(0);
    for (std::size_t i = 1; i < parts.size(); ++i) {
      if (const Type type = type_named(parts[i]); type != Type::kNone) {
        (in_.type == Type::kNone ? in_.type : in_.source) = type;
      } else {
        mnemonic_.modifiers.push_back(parts[i]);
      }
    }
    if (mnemonic_.has("global")) in_.space = Space::kGlobal;
    if (mnemonic_.has("shared") || mnemonic_.has("shared::cta")) in_.space = Space::kShared;
    if (mnemonic_.has("local")) in_.space = Space::kLocal;
    if (mnemonic_.has("param")) in_.space = Space::kParameter;
    if (mnemonic_.has("const")) in_.space = Space::kGlobal;
    in_.relaxed = mnemonic_.has("volatile") || mnemonic_.has("relaxed");
    in_.constant = mnemonic_.has("nc") || mnemonic_.has("const");
    in_.width = mnemonic_.has("v2") ? 2 : mnemonic_.has("v4") ? 4 : 1;
  }

  int from(const std::string& text) {  // "!%p1" or an ordinary operand
    if (text[0] != '!') return operands_.number(text);
    in_.negated = true;
    return operands_.number(text.substr(1));
  }
  void into(const std::string& text) {  // "%r1" or "%r1|%p1"
    const std::size_t bar = text.find('|');
    in_.to[0] = operands_.number(trimmed(text.substr(0, bar)));
    if (in_.to[0] >= 0) in_.mask = operands_.mask_of(in_.to[0]);
    if (bar != std::string::npos) in_.to[1] = operands_.number(trimmed(text.substr(bar + 1)));
  }
  int list(const std::string& text, int* out) {  // "{%r1, %r2}" or "%r1"
    if (text[0] != '{') {
      out[0] = operands_.number(text);
      return 1;
    }
    const std::vector<std::string> parts = split(text.substr(1, text.rfind('}') - 1), ',');
    if (parts.size() > 4) unsupported();
    for (std::size_t i = 0; i < parts.size(); ++i) out[i] = operands_.number(parts[i]);
    return static_cast<int>(parts.size());
  }

  void memory() {
    const std::string& name = mnemonic_.name;
    std::size_t next = 0;
    if (name == "ld" || name == "ldu") {
      list(arguments_.at(next++), in_.to);
      if (in_.to[0] >= 0) in_.mask = operands_.mask_of(in_.to[0]);
      in_.execute = load(in_.type);
    } else if (name == "atom") {
      in_.to[0] = operands_.number(arguments_.at(next++));
    }
    in_.from[0] = operands_.address(arguments_.at(next++), in_);
    if (name == "st") {
      list(arguments_.at(next), in_.from + 1);
      in_.execute = store(in_.type);
    } else if (name == "atom" || name == "red") {
      for (int i = 1; next < arguments_.size(); ++i) in_.from[i] = operands_.number(arguments_[next++]);
      in_.relaxed = true;
      in_.execute = atomic(mnemonic_, in_);
    }
    if (!in_.execute) unsupported();
  }

  // to, from...; a list on either side of mov packs or unpacks
  void values() {
    if (arguments_.size() < 2 || arguments_.size() > 6) unsupported();
    if (arguments_[0][0] == '{') {
      in_.width = static_cast<std::uint8_t>(list(arguments_[0], in_.to));
    } else {
      into(arguments_[0]);
    }
    if (arguments_[1][0] == '{') {
      in_.width = static_cast<std::uint8_t>(list(arguments_[1], in_.from));
      return;
    }
    for (std::size_t i = 1; i < arguments_.size(); ++i) in_.from[i - 1] = from(arguments_[i]);
  }

  // from[0 .. ) as the instruction names them, the mask of lanes in from[3]
  void collective_operands() {
    const std::string& name = mnemonic_.name;
    if (name == "bar" || name == "barrier") {
      if (mnemonic_.has("warp")) {
        in_.from[3] = operands_.number(arguments_.at(0));
        return;
      }
      const bool reduces = mnemonic_.has("red");
      if (arguments_.at(reduces ? 1 : 0) != "0") unsupported();  // a named barrier
      if (!reduces) return;
      into(arguments_[0]);
      in_.from[0] = from(arguments_.back());
      return;
    }
    into(arguments_.at(0));
    if (name == "activemask") return;
    for (std::size_t i = 1; i + 1 < arguments_.size(); ++i) in_.from[i - 1] = from(arguments_[i]);
    in_.from[3] = operands_.number(arguments_.back());
  }

  const std::string& statement_;
  Operands& operands_;
  Mnemonic mnemonic_;
  std::vector<std::string> arguments_;
  Instruction in_;
};

}  // namespace

Instruction decode(const std::string& statement, Operands& operands) {
  return Decoder(statement, operands).decode();
}

}  // namespace ptx
