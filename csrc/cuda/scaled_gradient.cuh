// The backward pass of a loss whose forward pass made the gradient: it is multiplied by what comes from above.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "head.cuh"

namespace ise_fast {
namespace {

// What a backward pass multiplies the gradients of a forward pass with.
struct Scales {
  const float *loss, *a, *b;  // scalars; a and b may be null
  double b_weight;
};

// a x (*loss + *scales.a) + b x (b_weight x *loss + *scales.b); b may be null.
__device__ float scaled_number(const float* a, const float* b, const Scales& scales, int64_t j) {
  const float a_scale = static_cast<float>(static_cast<double>(*scales.loss) + (scales.a ? *scales.a : 0.0f));
  float sum = a_scale * a[j];
  if (b) sum += static_cast<float>(scales.b_weight * *scales.loss + *scales.b) * b[j];
  return sum;
}

// A thread a number.
__global__ void scaled_sum(const float* a, const float* b, Scales scales, float* out, int64_t count) {
  const int64_t j = static_cast<int64_t>(blockIdx.x) * kHeadThreads + threadIdx.x;
  if (j < count) out[j] = scaled_number(a, b, scales, j);
}
template <class T>
__global__ void rounded_sum(const float* a, const float* b, Scales scales, T* out, int64_t count) {
  const int64_t j = static_cast<int64_t>(blockIdx.x) * kHeadThreads + threadIdx.x;
  if (j < count) out[j] = static_cast<T>(scaled_number(a, b, scales, j));
}

// The gradient of the features, of their dtype.
inline Tensor scaled_gradient(const Tensor& features, const Tensor& a, const float* b, const Scales& scales) {
  Tensor out = device_empty(features, a.sizes());
  const float* const first = a.const_data_ptr<float>();
  const int64_t count = out.numel();
  const unsigned blocks = blocks_for(count, kHeadThreads);
  const cudaStream_t stream = current_stream(features);
  void* const to = out.mutable_data_ptr();
  if (out.scalar_type() == ScalarType::Half) {
    LAUNCH(rounded_sum<__half>, blocks, kHeadThreads, 0, stream, first, b, scales, static_cast<__half*>(to), count);
  } else if (out.scalar_type() == ScalarType::BFloat16) {
    LAUNCH(rounded_sum<__nv_bfloat16>, blocks, kHeadThreads, 0, stream, first, b, scales,
           static_cast<__nv_bfloat16*>(to), count);
  } else {
    LAUNCH(scaled_sum, blocks, kHeadThreads, 0, stream, first, b, scales, static_cast<float*>(to), count);
  }
  return out;
}

}  // namespace
}  // namespace ise_fast
