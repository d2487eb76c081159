// From the text that nvcc wrote to modules and kernels: declarations, statements, labels and source lines. What a
// statement means is decode.cpp's business.
#include <cxxabi.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <stdexcept>
#include <tuple>

#include "operands.h"

namespace ptx {
namespace {

std::string without_comments(const std::string& text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '/' && i + 1 < text.size() && text[i + 1] == '/') i = std::min(text.find('\n', i), text.size() - 1);
    out += text[i];
  }
  return out;
}

// select_candidates<2048> of _ZN8ise_fast...: no namespaces, no parameters.
std::string readable(const std::string& symbol) {
  int status = 0;
  char* demangled = abi::__cxa_demangle(symbol.c_str(), nullptr, nullptr, &status);
  std::string name = demangled ? demangled : symbol;
  std::free(demangled);
  for (const char* part : {"ise_fast::", "(anonymous namespace)::", "void "}) {
    for (std::size_t at; (at = name.find(part)) != std::string::npos;) name.erase(at, std::strlen(part));
  }
  return name.substr(0, name.find('('));
}

// A declaration such as ".shared .align 8 .b64 name[32]" or ".param .u64 name".
struct Declaration {
  std::string name;
  int align = 1, bytes = 1, count = 1;

  explicit Declaration(const std::string& text) {
    std::istringstream words(text);
    std::string word;
    while (words >> word) {
      if (word == ".align") {
        words >> align;
      } else if (word[0] == '.') {
        if (const Type type = type_named(word.substr(1)); type != Type::kNone) bytes = bytes_of(type);
      } else {
        name += word;
      }
    }
    if (const std::size_t at = name.find('['); at != std::string::npos) {
      count = std::atoi(name.c_str() + at + 1);
      name.resize(at);
    }
    align = std::max(align, bytes);
  }

  int place(int& end) const {  // where it lies behind what is there already
    const int at = (end + align - 1) / align * align;
    end = at + bytes * count;
    return at;
  }
};

// Which line of the project's sources an instruction belongs to. Code that was inlined from elsewhere (intrinsics, the
// device library) belongs to the line that called it.
class Lines {
public:
  Lines(Module& module, const std::string& text) : module_(module) {
    module.locations.push_back({"?", 0});
    std::istringstream stream(text);
    std::string line, word, path;
    int number = 0;
    while (std::getline(stream, line)) {
      std::istringstream words(line);
      if (words >> word >> number && word == ".file" && std::getline(words, path)) {
        path = path.substr(path.find('"') + 1);
        files_[number] = path.substr(0, path.find('"'));
      }
    }
  }

  // ".loc 2 30 3, function_name $L__info_string0, inlined_at 1 116 3"
  void read(const std::string& directive) {
    std::istringstream words(directive);
    std::string word;
    Key here{}, caller{};
    words >> word >> std::get<0>(here) >> std::get<1>(here) >> std::get<2>(here);
    bool inlined = false;
    while (words >> word) {
      if (word == "inlined_at") {
        inlined = true;
        words >> std::get<0>(caller) >> std::get<1>(caller) >> std::get<2>(caller);
      }
    }
    if (std::get<1>(here) == 0) return;  // code of no line: stays with the one before
    const std::string& file = files_[std::get<0>(here)];
    int found = own(file, std::get<1>(here));
    if (found == 0 && inlined) {
      const auto known = resolved_.find(caller);
      found = known != resolved_.end() ? known->second : own(files_[std::get<0>(caller)], std::get<1>(caller));
    }
    if (found == 0) return;
    resolved_[here] = current_ = found;
  }
  int current() const { return current_; }

private:
  using Key = std::tuple<int, int, int>;  // file, line, column

  int own(const std::string& path, int line) {
    std::size_t at = path.rfind("/csrc/");
    if (at == std::string::npos) at = path.rfind("/tests/");
    if (at == std::string::npos) return 0;
    std::string file = path.substr(at + 1);
    for (std::size_t up; (up = file.find("/../")) != std::string::npos;) {
      const std::size_t parent = file.rfind('/', up - 1);
      file.erase(parent + 1, up + 4 - parent - 1);
    }
    const auto [entry, fresh] = numbers_.try_emplace({file, line}, static_cast<int>(module_.locations.size()));
    if (fresh) module_.locations.push_back({file, line});
    return entry->second;
  }

  Module& module_;
  std::map<int, std::string> files_;
  std::map<std::pair<std::string, int>, int> numbers_;
  std::map<Key, int> resolved_;
  int current_ = 0;
};

class Body {
public:
  Body(Kernel& kernel, Operands& operands, Lines& lines) : kernel_(kernel), operands_(operands), lines_(lines) {}

  void read(const std::string& text) {
    std::istringstream stream(text);
    std::string line, pending;
    while (std::getline(stream, line)) {
      if (trimmed(line).rfind(".loc", 0) == 0) {
        lines_.read(trimmed(line));
        continue;
      }
      for (const char c : line + ' ') {
        if (c == ';') {
          statement(trimmed(pending));
          pending.clear();
        } else if (c == ':' && is_label(pending)) {
          labels_[trimmed(pending)] = static_cast<int>(kernel_.code.size());
          pending.clear();
        } else if ((c == '{' || c == '}') && trimmed(pending).empty()) {
          pending.clear();
        } else {
          pending += c == '\t' ? ' ' : c;
        }
      }
    }
    statement("ret");
    for (Instruction& instruction : kernel_.code) {
      if (instruction.control != Control::kBranch) continue;
      const std::string& text_of = kernel_.statements[instruction.statement];
      instruction.target = labels_.at(text_of.substr(text_of.find_last_of(" ") + 1));
    }
  }

private:
  static bool is_label(const std::string& text) { return trimmed(text).find_first_of(" ,[{|") == std::string::npos; }

  void statement(const std::string& text) {
    if (text.empty() || text.rfind(".pragma", 0) == 0) return;
    if (text[0] == '.') return declare(text);
    Instruction instruction = decode(text, operands_);
    instruction.location = lines_.current();
    instruction.statement = static_cast<int>(kernel_.statements.size());
    kernel_.statements.push_back(text);
    kernel_.code.push_back(instruction);
  }

  void declare(const std::string& text) {
    if (text.rfind(".reg", 0) == 0) {
      operands_.declare_registers(trimmed(text.substr(4)));
    } else if (text.rfind(".shared", 0) == 0) {
      const Declaration shared(text);
      operands_.name_constant(shared.name, shared.place(kernel_.static_shared));
    } else if (text.rfind(".local", 0) == 0) {
      const Declaration local(text);
      operands_.name_constant(local.name, local.place(kernel_.local_bytes));
    } else {
      throw std::runtime_error("unknown directive: " + text);
    }
  }

  Kernel& kernel_;
  Operands& operands_;
  Lines& lines_;
  std::map<std::string, int> labels_;
};

class Reader {
public:
  explicit Reader(const std::string& text)
      : text_(without_comments(text)), module_(new Module), lines_(*module_, text) {}

  std::unique_ptr<Module> read() {
    // What follows are line tables and debugging sections.
    for (const char* tables : {"\n\t.file", "\n.file"}) text_.resize(std::min(text_.size(), text_.find(tables)));
    for (std::size_t at = skip_header(); at < text_.size();) {
      const std::size_t end = text_.find_first_of(";{", at);
      if (end == std::string::npos) break;
      const std::string head = text_.substr(at, end - at);
      if (head.find(".func") != std::string::npos) throw std::runtime_error("functions are not supported: " + head);
      if (const std::size_t entry = head.find(".entry"); entry != std::string::npos) {
        const std::size_t close = matching_brace(end);
        kernel(trimmed(head.substr(entry + 6)), text_.substr(end + 1, close - end - 1));
        at = close + 1;
      } else {
        const std::size_t semicolon = text_.find(';', at);
        if (semicolon == std::string::npos) throw std::runtime_error("a declaration does not end: " + head);
        variable(trimmed(text_.substr(at, semicolon - at)));
        at = semicolon + 1;
      }
    }
    return std::move(module_);
  }

private:
  std::size_t skip_header() const {
    const std::size_t at = text_.find(".address_size");
    if (at == std::string::npos) throw std::runtime_error("no PTX: .address_size is missing");
    return text_.find('\n', at);
  }

  std::size_t matching_brace(std::size_t at) const {
    for (int depth = 0; at < text_.size(); ++at) {
      if (text_[at] == '{') ++depth;
      if (text_[at] == '}' && --depth == 0) return at;
    }
    throw std::runtime_error("a kernel does not end");
  }

  void kernel(const std::string& head, const std::string& body) {
    auto kernel = std::make_unique<Kernel>();
    kernel->module = module_.get();
    const std::size_t open = head.find('(');
    kernel->symbol = trimmed(head.substr(0, open));
    kernel->name = readable(kernel->symbol);
    Operands operands(*kernel);
    if (open != std::string::npos) {
      for (const std::string& text : split(head.substr(open + 1, head.rfind(')') - open - 1), ',')) {
        const Declaration parameter(text);
        const int offset = parameter.place(kernel->parameter_bytes);
        kernel->parameters.push_back({parameter.name, offset, parameter.bytes * parameter.count});
        operands.name_constant(parameter.name, offset);
      }
    }
    for (const auto& variable : module_->variables) {
      operands.name_constant(variable->name,
                             static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(variable->bytes.data())));
    }
    operands.name_dynamic_shared(dynamic_shared_);
    try {
      Body(*kernel, operands, lines_).read(body);
    } catch (const std::exception& error) {
      kernel->refusal = error.what();
    }
    operands.finish();
    module_->kernels.push_back(std::move(kernel));
  }

  // Of the module: memory in the global space, or the name of the dynamic shared memory.
  void variable(const std::string& text) {
    const std::size_t equals = text.find('=');
    const Declaration declaration(text.substr(0, equals));
    if (text.find(".shared") != std::string::npos) {
      dynamic_shared_ = declaration.name;
      return;
    }
    auto variable = std::make_unique<Module::Variable>();
    variable->name = declaration.name;
    variable->bytes.resize(static_cast<std::size_t>(declaration.bytes) * declaration.count);
    if (equals != std::string::npos) {
      const std::size_t open = text.find('{', equals), close = text.rfind('}');
      if (open == std::string::npos) throw std::runtime_error("unknown initialiser: " + text);
      std::size_t at = 0;
      for (const std::string& value : split(text.substr(open + 1, close - open - 1), ',')) {
        const std::uint64_t bits = immediate(value);
        std::memcpy(variable->bytes.data() + at, &bits, declaration.bytes);
        at += declaration.bytes;
      }
    }
    module_->variables.push_back(std::move(variable));
  }

  std::string text_, dynamic_shared_;
  std::unique_ptr<Module> module_;
  Lines lines_;
};

}  // namespace

std::unique_ptr<Module> parse(const std::string& text) {
  return Reader(text).read();
}

}  // namespace ptx
