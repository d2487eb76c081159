// Lets a host compiler compile and run CUDA C++ kernels: see docs/kernels.md. csrc/cuda/launch.h includes this file
// when the compiler is not nvcc.
#pragma once
#include <tuple>

#include "half.h"
#include "intrinsics.h"

using cudaStream_t = void*;

namespace simt {

template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes,
            Arguments&&... arguments) {
  // Arguments are converted once, as a launch does, and copied for each thread.
  const std::tuple<std::remove_cv_t<Parameters>...> values(static_cast<Parameters>(arguments)...);
  launch(name, grid, block, shared_bytes, std::function<void()>([&] { std::apply(kernel, values); }));
}

// A value that other threads may change meanwhile: CUDA's volatile (relaxed) accesses.
template <class T>
__attribute__((no_sanitize("thread"))) T load_relaxed(const T* address, const Where& where) {
  atomic_access(address, sizeof(T), false, where);
  return *address;
}
template <class T>
__attribute__((no_sanitize("thread"))) void store_relaxed(T* address, T value, const Where& where) {
  atomic_access(address, sizeof(T), true, where);
  *address = value;
}

}  // namespace simt
