// cuBLAS's products as one plain kernel, for runs under compute-sanitizer (tests/plain_products.py loads it). On Hopper
// the library stores results by TMA: initcheck takes them for memory that nobody wrote, and racecheck fails in kernels
// that it was told to leave alone. Every store of this kernel is an ordinary one, and nothing here depends on speed.
//
// Only the products that csrc/cuda/gemm.h asks for, with the signatures of the library. By nvcc alone:
//   nvcc -std=c++20 -arch=native -shared -Xcompiler=-fPIC -o plain_products.so tests/simt/plain_products.cu
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <atomic>
#include <cstdint>

#ifdef __CUDACC__
#include <dlfcn.h>
#else
#include "simt.h"
#endif

namespace {

constexpr int kSuccess = 0, kInvalidValue = 7, kLaunchFailed = 13, kInternalError = 14, kNotSupported = 15;
constexpr int kFloat = 0, kHalf = 2, kBFloat16 = 14, kCompute32F = 68;  // cudaDataType_t, cublasComputeType_t

// The matrices of one side, column by column. Element (row, column) of op(X) lies at row + column pitch, or at
// column + row pitch if transposed; the next matrix begins `stride` elements further.
struct Matrices {
  const void* data;
  int type;
  bool transposed;
  std::int64_t pitch, stride;

  __device__ float at(std::int64_t batch, std::int64_t row, std::int64_t column) const {
    const std::int64_t i = batch * stride + (transposed ? column + row * pitch : row + column * pitch);
    if (type == kFloat) return static_cast<const float*>(data)[i];
    return type == kHalf ? __half2float(static_cast<const __half*>(data)[i])
                         : __bfloat162float(static_cast<const __nv_bfloat16*>(data)[i]);
  }
};

// C = alpha op(A) op(B) + beta C: a thread for each element of each C. What beta = 0 multiplies is not read.
__global__ void plain_product(Matrices a, Matrices b, std::int64_t m, std::int64_t n, std::int64_t k,
                              std::int64_t batches, float alpha, float beta, float* c, std::int64_t c_pitch,
                              std::int64_t c_stride) {
  const std::int64_t thread = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (thread >= batches * m * n) return;
  const std::int64_t batch = thread / (m * n), column = thread / m % n, row = thread % m;
  float sum = 0;
  for (std::int64_t i = 0; i < k; ++i) sum += a.at(batch, row, i) * b.at(batch, i, column);
  float* const out = c + batch * c_stride + column * c_pitch + row;
  *out = alpha * sum + (beta == 0 ? 0 : beta * *out);
}

std::atomic<int> formed = 0;

int launch(void* handle, const Matrices& a, const Matrices& b, std::int64_t m, std::int64_t n, std::int64_t k,
           std::int64_t batches, float alpha, float beta, float* c, std::int64_t c_pitch, std::int64_t c_stride) {
  constexpr unsigned kThreads = 128;
  const unsigned blocks = static_cast<unsigned>((batches * m * n + kThreads - 1) / kThreads);
#ifdef __CUDACC__
  // The library itself knows the stream of its handle. It is found through PyTorch's: no name of a file depends on its
  // version then, and this library can be loaded before PyTorch.
  using GetStream = int (*)(void* handle, cudaStream_t* stream);
  void* const torch = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
  const auto get_stream = torch ? reinterpret_cast<GetStream>(dlsym(torch, "cublasGetStream_v2")) : nullptr;
  if (get_stream == nullptr) return kInternalError;
  cudaStream_t stream = nullptr;
  if (const int status = get_stream(handle, &stream); status != kSuccess) return status;
  plain_product<<<blocks, kThreads, 0, stream>>>(a, b, m, n, k, batches, alpha, beta, c, c_pitch, c_stride);
  return cudaGetLastError() == cudaSuccess ? kSuccess : kLaunchFailed;
#else
  (void)handle;
  simt::launch("plain_product", plain_product, blocks, kThreads, 0, a, b, m, n, k, batches, alpha, beta, c, c_pitch,
               c_stride);
  return kSuccess;
#endif
}

}  // namespace

extern "C" {

__attribute__((visibility("default"))) int cublasGemmStridedBatchedEx(
    void* handle, int a_transposed, int b_transposed, int m, int n, int k, const void* alpha, const void* a, int a_type,
    int a_pitch, long long a_stride, const void* b, int b_type, int b_pitch, long long b_stride, const void* beta,
    void* c, int c_type, int c_pitch, long long c_stride, int batches, int compute_type, int) {
  if (a_type != b_type || c_type != kFloat || compute_type != kCompute32F) return kNotSupported;
  if (a_type != kFloat && a_type != kHalf && a_type != kBFloat16) return kNotSupported;
  if (m < 0 || n < 0 || k < 0 || batches < 0 || a_pitch < (a_transposed ? k : m) || b_pitch < (b_transposed ? n : k) ||
      c_pitch < m) {
    return kInvalidValue;
  }
  if (m == 0 || n == 0 || batches == 0) return kSuccess;
  const int status =
      launch(handle, {a, a_type, a_transposed != 0, a_pitch, a_stride},
             {b, b_type, b_transposed != 0, b_pitch, b_stride}, m, n, k, batches, *static_cast<const float*>(alpha),
             *static_cast<const float*>(beta), static_cast<float*>(c), c_pitch, c_stride);
  if (status == kSuccess) ++formed;
  return status;
}

__attribute__((visibility("default"))) int cublasGemmEx(void* handle, int a_transposed, int b_transposed, int m, int n,
                                                        int k, const void* alpha, const void* a, int a_type,
                                                        int a_pitch, const void* b, int b_type, int b_pitch,
                                                        const void* beta, void* c, int c_type, int c_pitch,
                                                        int compute_type, int algorithm) {
  return cublasGemmStridedBatchedEx(handle, a_transposed, b_transposed, m, n, k, alpha, a, a_type, a_pitch, 0, b,
                                    b_type, b_pitch, 0, beta, c, c_type, c_pitch, 0, 1, compute_type, algorithm);
}

// How many calls the library has been spared.
__attribute__((visibility("default"))) int plain_products_formed() {
  return formed;
}

}  // extern "C"
