// How an operator of the CPU library is registered: m.impl("name", OPERATOR(name)).
#pragma once

#include <torch/csrc/stable/library.h>

#include <limits>
#include <stdexcept>
#include <utility>

#include "../out_of_memory.h"
#include "float_mode.h"

namespace ise_fast {

template <auto function>
struct Operator;

// Runs `function` with denormal numbers; a size that no memory has is "out of memory", too.
template <class Result, class... Arguments, Result (*function)(Arguments...)>
struct Operator<function> {
  static Result run(Arguments... arguments) {
    const ExactFloats exact;
    try {
      return function(std::forward<Arguments>(arguments)...);
    } catch (const std::length_error&) {  // of a std::vector
      throw OutOfMemory(std::numeric_limits<uint64_t>::max());
    } catch (const std::bad_array_new_length&) {
      throw OutOfMemory(std::numeric_limits<uint64_t>::max());
    }
  }
};

}  // namespace ise_fast

#define OPERATOR(function) TORCH_BOX((&::ise_fast::Operator<&function>::run))
