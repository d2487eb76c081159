// Matrix products by cuBLAS, called directly, with the handle that PyTorch keeps for the current device and stream.
//
// Not through aten::mm, which obeys settings of the user that our bounds and bits do not survive: with
// torch.set_float32_matmul_precision("high") it rounds float32 to 11 bits, with allow_fp16_accumulation it refuses
// float16 operands, with use_deterministic_algorithms(True) it wants an environment variable. Here a product is always
// of the numbers as they are, accumulated in float32.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <limits>
#include <sstream>
#include <stdexcept>

#include "../math/host_device.h"
#include "device.h"

#ifdef __CUDACC__

// All that we need of cublas_v2.h: nvcc may come without it. PyTorch has loaded the library.
extern "C" {
int cublasSetMathMode(void* handle, int mode);
const char* cublasGetStatusString(int status);
int cublasGemmEx(void* handle, int a_transposed, int b_transposed, int m, int n, int k, const void* alpha,
                 const void* a, int a_type, int a_pitch, const void* b, int b_type, int b_pitch, const void* beta,
                 void* c, int c_type, int c_pitch, int compute_type, int algorithm);
int cublasGemmStridedBatchedEx(void* handle, int a_transposed, int b_transposed, int m, int n, int k, const void* alpha,
                               const void* a, int a_type, int a_pitch, long long a_step, const void* b, int b_type,
                               int b_pitch, long long b_step, const void* beta, void* c, int c_type, int c_pitch,
                               long long c_step, int count, int compute_type, int algorithm);
}

#else
#include "cublas.h"  // of tests/simt
#endif

namespace ise_fast {
namespace blas {

constexpr int kDefaultMath = 0, kCompute32F = 68, kDefaultAlgorithm = -1;
constexpr int kFloat = 0, kHalf = 2, kBFloat16 = 14;

inline void* handle() {
  void* found = nullptr;
  TORCH_ERROR_CODE_CHECK(torch_get_current_cuda_blas_handle(&found));
  return found;
}

// A matrix as cuBLAS sees it, column by column: so ours appear transposed, unless their rows are what is contiguous.
struct Operand {
  const void* data;
  int type, pitch, transposed;

  explicit Operand(const torch::stable::Tensor& matrix) : data(matrix.const_data_ptr()) {
    using torch::headeronly::ScalarType;
    const int64_t rows = matrix.size(0), columns = matrix.size(1), down = matrix.stride(0), across = matrix.stride(1);
    const bool by_rows = (across == 1 || columns == 1) && (down >= columns || rows == 1);
    const bool by_columns = (down == 1 || rows == 1) && (across >= rows || columns == 1);
    if (!by_rows && !by_columns) throw std::logic_error("matmul: expected a matrix with contiguous rows or columns");
    const int64_t wanted = std::max<int64_t>(by_rows ? std::max(down, columns) : std::max(across, rows), 1);
    if (wanted > std::numeric_limits<int>::max()) throw std::logic_error("matmul: expected rows below 2^31 numbers");
    pitch = static_cast<int>(wanted);
    transposed = !by_rows;
    type = matrix.scalar_type() == ScalarType::Float  ? kFloat
           : matrix.scalar_type() == ScalarType::Half ? kHalf
                                                      : kBFloat16;
  }
};

}  // namespace blas

enum class Then { kStore, kAdd };

// Equal products in one call: from one to the next, a, b and out are so many numbers further.
struct Repeat {
  int count = 1;
  int64_t a = 0, b = 0, out = 0;
};

// out [m, n] f32 = a [m, d] b [d, n], accumulated in f32; kAdd: out += a b. a and b are both f16, both bf16 or both
// f32, each contiguous by rows or by columns (torch::stable::transpose makes b from rows); out may be a slice of a
// larger tensor, or have padded rows. The bits of a result may differ between GPUs and libraries, not between two
// calls. Of repeated products the first is given.
inline void matmul(torch::stable::Tensor& out, const torch::stable::Tensor& a, const torch::stable::Tensor& b,
                   Then then = Then::kStore, const Repeat& repeat = {}) {
  const int64_t m = out.size(0), n = out.size(1), d = a.size(1);
  if (m == 0 || n == 0) return;
  const blas::Operand left(a), right(b), result(out);
  if (d == 0) {
    if (then == Then::kAdd) return;
    fill_bytes(out.mutable_data_ptr(), 0, ((m - 1) * result.pitch + n) * sizeof(float), current_stream(out));
    return;
  }
  const auto check_status = [&](int status, const char* call) {
    if (status == 0) return;
    std::ostringstream text;
    text << call << ": " << cublasGetStatusString(status) << " ([" << m << ", " << d << "] x [" << d << ", " << n
         << "])";
    throw std::runtime_error(text.str());
  };
  void* const handle = blas::handle();
  // PyTorch sets this to what the user asked for whenever it takes the handle, so nothing has to be put back.
  check_status(cublasSetMathMode(handle, blas::kDefaultMath), "cublasSetMathMode");
  const float one = 1, kept = then == Then::kAdd ? 1 : 0;
  const int rows = static_cast<int>(m), columns = static_cast<int>(n), depth = static_cast<int>(d);
  void* const to = out.mutable_data_ptr();
  if (repeat.count == 1) {
    check_status(cublasGemmEx(handle, right.transposed, left.transposed, columns, rows, depth, &one, right.data,
                              right.type, right.pitch, left.data, left.type, left.pitch, &kept, to, blas::kFloat,
                              result.pitch, blas::kCompute32F, blas::kDefaultAlgorithm),
                 "cublasGemmEx");
    return;
  }
  check_status(cublasGemmStridedBatchedEx(handle, right.transposed, left.transposed, columns, rows, depth, &one,
                                          right.data, right.type, right.pitch, repeat.b, left.data, left.type,
                                          left.pitch, repeat.a, &kept, to, blas::kFloat, result.pitch, repeat.out,
                                          repeat.count, blas::kCompute32F, blas::kDefaultAlgorithm),
               "cublasGemmStridedBatchedEx");
}

// The library multiplies on tensor cores of this generation only where every row of every operand and of the result
// begins at a multiple of 16 bytes: with 32,621 base rows an H100 took 41 ms for what 32,624 rows take 6. So whoever
// makes operands fills rows and columns up with zeros: this many float16 numbers are whole 16 bytes, this many float32
// numbers whole sectors of memory.
ISE_HOST_DEVICE int64_t whole_sectors(int64_t numbers) {
  constexpr int64_t kSector = 8;
  return (numbers + kSector - 1) / kSector * kSector;
}

// |float32 product - exact one| <= this x ||a|| ||b||, for any order of summation, with rounding or truncation; the 16
// covers the rounding of the exact one to float32, so that values that round to a tie are both candidates.
ISE_HOST_DEVICE double product_error(int64_t d) {
  return (2 * d + 16) * 0x1p-24 * 1.01;
}

}  // namespace ise_fast
