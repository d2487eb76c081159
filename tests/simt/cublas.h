// The part of cuBLAS that csrc/cuda/gemm.h calls, on the CPU, with the signatures of the library. What arithmetic the
// products have can be chosen by the tests: simt_set_products.
#pragma once

#include <cstdint>

int cublasSetMathMode(void* handle, int mode);
const char* cublasGetStatusString(int status);
int cublasGemmEx(void* handle, int a_transposed, int b_transposed, int m, int n, int k, const void* alpha,
                 const void* a, int a_type, int a_pitch, const void* b, int b_type, int b_pitch, const void* beta,
                 void* c, int c_type, int c_pitch, int compute_type, int algorithm);
int cublasGemmStridedBatchedEx(void* handle, int a_transposed, int b_transposed, int m, int n, int k, const void* alpha,
                               const void* a, int a_type, int a_pitch, long long a_step, const void* b, int b_type,
                               int b_pitch, long long b_step, const void* beta, void* c, int c_type, int c_pitch,
                               long long c_step, int count, int compute_type, int algorithm);

// PyTorch's: the handle comes with the math mode that the user asked for.
std::int32_t torch_get_current_cuda_blas_handle(void** handle);
