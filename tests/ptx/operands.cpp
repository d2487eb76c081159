#include "operands.h"

#include <cctype>
#include <cstdlib>
#include <stdexcept>

namespace ptx {
namespace {

const std::map<std::string, int> kSpecials = {
    {"%tid.x", kThreadX},         {"%tid.y", kThreadY},        {"%tid.z", kThreadZ},
    {"%ntid.x", kBlockSizeX},     {"%ntid.y", kBlockSizeY},    {"%ntid.z", kBlockSizeZ},
    {"%ctaid.x", kBlockX},        {"%ctaid.y", kBlockY},       {"%ctaid.z", kBlockZ},
    {"%nctaid.x", kGridX},        {"%nctaid.y", kGridY},       {"%nctaid.z", kGridZ},
    {"%laneid", kLane},           {"%warpid", kWarp},          {"%lanemask_lt", kLanesBelow},
    {"%lanemask_le", kLanesUpTo}, {"%lanemask_eq", kThisLane}, {"%lanemask_gt", kLanesAbove},
    {"%lanemask_ge", kLanesFrom},
};

const std::map<std::string, Type> kTypes = {
    {"pred", Type::kPredicate}, {"b8", Type::kU8},   {"u8", Type::kU8},   {"s8", Type::kS8},   {"b16", Type::kU16},
    {"u16", Type::kU16},        {"s16", Type::kS16}, {"b32", Type::kU32}, {"u32", Type::kU32}, {"s32", Type::kS32},
    {"b64", Type::kU64},        {"u64", Type::kU64}, {"s64", Type::kS64}, {"f16", Type::kF16}, {"bf16", Type::kBF16},
    {"f32", Type::kF32},        {"f64", Type::kF64},
};

std::uint64_t mask_of_bytes(int bytes) {
  return bytes == 8 ? ~std::uint64_t{0} : (std::uint64_t{1} << 8 * bytes) - 1;
}

}  // namespace

std::string trimmed(const std::string& text) {
  const std::size_t begin = text.find_first_not_of(" \t\r\n"), end = text.find_last_not_of(" \t\r\n");
  return begin == std::string::npos ? "" : text.substr(begin, end - begin + 1);
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::string part;
  int depth = 0;
  for (const char c : text) {
    if (c == '{' || c == '[' || c == '(') ++depth;
    if (c == '}' || c == ']' || c == ')') --depth;
    if (c == separator && depth == 0) {
      parts.push_back(trimmed(part));
      part.clear();
    } else {
      part += c;
    }
  }
  if (!trimmed(part).empty()) parts.push_back(trimmed(part));
  return parts;
}

std::uint64_t immediate(const std::string& text) {
  if (text.size() > 2 && text[0] == '0' && std::string("fFdD").find(text[1]) != std::string::npos) {
    return std::strtoull(text.c_str() + 2, nullptr, 16);  // the bits of a float
  }
  if (text[0] == '-') return static_cast<std::uint64_t>(std::strtoll(text.c_str(), nullptr, 0));
  return std::strtoull(text.c_str(), nullptr, 0);
}

int bytes_of(Type type) {
  switch (type) {
    case Type::kPredicate:
    case Type::kU8:
    case Type::kS8:
      return 1;
    case Type::kU16:
    case Type::kS16:
    case Type::kF16:
    case Type::kBF16:
      return 2;
    case Type::kU32:
    case Type::kS32:
    case Type::kF32:
      return 4;
    default:
      return 8;
  }
}

Type type_named(const std::string& name) {
  const auto found = kTypes.find(name);
  return found == kTypes.end() ? Type::kNone : found->second;
}

int Operands::fresh(std::uint64_t mask) {
  masks_.push_back(mask);
  return kernel_.registers++;
}

int Operands::constant(std::uint64_t value) {
  const auto [entry, is_new] = constants_.try_emplace(value, -1);
  if (is_new) {
    entry->second = fresh(~std::uint64_t{0});
    kernel_.presets.push_back({Preset::What::kConstant, entry->second, value});
  }
  return entry->second;
}

void Operands::declare_registers(const std::string& declaration) {
  const std::size_t space = declaration.find_first_of(" \t");
  const Type type = type_named(declaration.substr(1, space - 1));
  if (type == Type::kNone) throw std::runtime_error("unknown type of a register: " + declaration);
  for (const std::string& name : split(declaration.substr(space), ',')) {
    const std::size_t many = name.find('<');
    const int count = many == std::string::npos ? 1 : std::atoi(name.c_str() + many + 1);
    for (int i = 0; i < count; ++i) {
      const std::string full = many == std::string::npos ? name : name.substr(0, many) + std::to_string(i);
      const auto [entry, is_new] = registers_.try_emplace(full, -1);
      if (is_new) entry->second = fresh(mask_of_bytes(bytes_of(type)));
      masks_[entry->second] = mask_of_bytes(bytes_of(type));  // a scope may declare a name again
    }
  }
}

void Operands::name_constant(const std::string& name, std::int64_t value) {
  named_[name] = value;
}

int Operands::number(const std::string& text) {
  if (text == "_") return -1;
  if (const auto known = registers_.find(text); known != registers_.end()) return known->second;
  if (const auto special = kSpecials.find(text); special != kSpecials.end()) {
    const auto [entry, is_new] = specials_.try_emplace(special->second, -1);
    if (is_new) {
      entry->second = fresh(~std::uint64_t{0});
      kernel_.presets.push_back({Preset::What::kSpecial, entry->second, static_cast<std::uint64_t>(special->second)});
    }
    return entry->second;
  }
  if (std::isdigit(static_cast<unsigned char>(text[0])) || text[0] == '-') return constant(immediate(text));
  const std::size_t plus = text.find('+');
  const std::string name = trimmed(text.substr(0, plus));
  const std::int64_t offset = plus == std::string::npos ? 0 : std::strtoll(text.c_str() + plus + 1, nullptr, 0);
  if (const auto known = named_.find(name); known != named_.end()) {
    return constant(static_cast<std::uint64_t>(known->second + offset));
  }
  if (name == dynamic_shared_ && offset == 0) {
    if (dynamic_slot_ < 0) dynamic_slot_ = fresh(~std::uint64_t{0});
    return dynamic_slot_;
  }
  throw std::runtime_error("unknown operand: " + text);
}

int Operands::address(const std::string& text, Instruction& instruction) {
  std::string inner = trimmed(text.substr(1, text.rfind(']') - 1));
  const std::size_t plus = inner.find('+');
  if (plus != std::string::npos) {
    instruction.offset = std::strtoll(inner.c_str() + plus + 1, nullptr, 0);
    inner = trimmed(inner.substr(0, plus));
  }
  return number(inner);
}

void Operands::finish() {
  kernel_.static_shared = (kernel_.static_shared + 15) / 16 * 16;
  if (dynamic_slot_ < 0) return;
  const auto begin = static_cast<std::uint64_t>(kernel_.static_shared);
  kernel_.presets.push_back({Preset::What::kConstant, dynamic_slot_, begin});
}

}  // namespace ptx
