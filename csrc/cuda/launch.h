// All that a .cu file needs besides CUDA C++: launching kernels and registering operators. The same files are compiled
// by nvcc into the CUDA library and, by the tests, with a host compiler into a library that runs the kernels on the CPU
// (docs/kernels.md). The differences between the two end in this file, device.h, gemm.h and cub.cu.
#pragma once

#include <torch/csrc/stable/library.h>

#include "../interrupt.h"
#include "device.h"

#ifdef __CUDACC__

namespace ise_fast {

template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
            cudaStream_t stream, Arguments&&... arguments) {
  poll_interrupt();
  kernel<<<grid, block, shared_bytes, stream>>>(static_cast<Parameters>(arguments)...);
  check_cuda(cudaGetLastError(), name);
}

// What other threads may change meanwhile, or see: neither kept in a register nor torn.
template <class T>
__device__ __forceinline__ T load_relaxed(const T* address) {
  return *const_cast<const volatile T*>(address);
}
template <class T>
__device__ __forceinline__ void store_relaxed(T* address, T value) {
  *const_cast<volatile T*>(address) = value;
}

}  // namespace ise_fast

// The block's dynamic shared memory, as an array of `type` called `name`.
#define DYNAMIC_SHARED(type, name)                                \
  extern __shared__ __align__(16) unsigned char dynamic_shared[]; \
  type* const name = reinterpret_cast<type*>(dynamic_shared)
#ifdef ISE_FAST_PTX  // tests/ptx: nvcc's code, interpreted, on CPU tensors
#define ISE_FAST_CUDA_OPERATORS(m) STABLE_TORCH_LIBRARY_IMPL(ise_fast_ptx, CPU, m)
#else
#define ISE_FAST_CUDA_OPERATORS(m) STABLE_TORCH_LIBRARY_IMPL(ise_fast, CUDA, m)
#endif

#else  // tests/simt: the same kernels on CPU tensors, as torch.ops.ise_fast_simt

namespace ise_fast {

template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
            cudaStream_t stream, Arguments&&... arguments) {
  poll_interrupt();
  simt::check_device(name, stream);
  simt::launch(name, kernel, grid, block, shared_bytes, arguments...);
}

template <class T>
T load_relaxed(const T* address, simt::Where where = simt::Where::current()) {
  return simt::load_relaxed(address, where);
}
template <class T>
void store_relaxed(T* address, std::type_identity_t<T> value, simt::Where where = simt::Where::current()) {
  simt::store_relaxed(address, value, where);
}

}  // namespace ise_fast

#define DYNAMIC_SHARED(type, name) type* const name = static_cast<type*>(simt::dynamic_shared())
#define ISE_FAST_CUDA_OPERATORS(m) STABLE_TORCH_LIBRARY_IMPL(ise_fast_simt, CPU, m)

#endif

// The only spelling of a launch: LAUNCH(kernel, grid, block, shared_bytes, stream, arguments...). A kernel template
// with several arguments goes into parentheses. Arguments are converted to the kernel's parameter types.
#define LAUNCH(kernel, ...) ::ise_fast::launch(#kernel, kernel, __VA_ARGS__)

namespace ise_fast {

inline unsigned blocks_for(int64_t items, int64_t per_block) {
  return static_cast<unsigned>((items + per_block - 1) / per_block);
}

}  // namespace ise_fast
