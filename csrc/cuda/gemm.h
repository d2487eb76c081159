// Matrix products by PyTorch's library, called through its dispatcher: cuBLAS on a GPU.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <array>

namespace ise_fast {

// out [m, n] f32 = a [m, d] b [d, n], accumulated in f32. a and b are both f16, both bf16 or both f32, with any strides
// (torch::stable::transpose makes b from rows); out may be a slice of a larger tensor.
// Only the "out" overloads: autocast, which may be active around us, leaves those alone. f32 products follow
// torch.backends.cuda.matmul.allow_tf32 (off by default); the bits of a result may differ between GPUs and libraries.
inline void matmul(torch::stable::Tensor& out, const torch::stable::Tensor& a, const torch::stable::Tensor& b) {
  using torch::headeronly::ScalarType;
  using torch::stable::Tensor;
  using torch::stable::detail::from;
  const auto call = [](const char* overload, auto stack) {
    TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::mm", overload, stack.data(), TORCH_ABI_VERSION));
    torch::stable::detail::to<Tensor>(stack[0]);  // takes ownership of the returned handle
  };
  if (a.scalar_type() == ScalarType::Float) {
    call("out", std::array<StableIValue, 3>{from(a), from(b), from(out)});
    return;
  }
#ifdef __CUDACC__
  call("dtype_out", std::array<StableIValue, 4>{from(a), from(b), from(ScalarType::Float), from(out)});
#else  // a CPU has no such overload: products of two f16 or bf16 numbers are exact in f32, so converting first is the
       // same
  const Tensor wide_a = torch::stable::to(a, ScalarType::Float), wide_b = torch::stable::to(b, ScalarType::Float);
  call("out", std::array<StableIValue, 3>{from(wide_a), from(wide_b), from(out)});
#endif
}

}  // namespace ise_fast
