// cuBLAS on the CPU, see cublas.h. Column by column, as the library counts.
#include "cublas.h"

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "half.h"
#include "pretended.h"

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int kSuccess = 0, kInvalidValue = 7, kNotSupported = 15;
constexpr int kTensorFloat32 = 3;  // cublasMath_t
constexpr int kFloat = 0, kHalf = 2, kBFloat16 = 14, kCompute32F = 68;

struct Handle {
  int math = 0;
} the_handle;

struct Settings {
  bool tensor_float_32 = false;  // what the user asked PyTorch for
  int guard_bits = -1;           // of the tensor cores; -1: exact sums, rounded once
  int failure = 0;               // status of the next product
} settings;

// A matrix of floats, row by row.
struct Numbers {
  int rows, columns;
  std::vector<float> value;
  float at(int r, int c) const { return value[static_cast<std::size_t>(r) * columns + c]; }
};

float number(const void* data, int type, std::int64_t i) {
  if (type == kFloat) return static_cast<const float*>(data)[i];
  return type == kHalf ? static_cast<float>(static_cast<const __half*>(data)[i])
                       : static_cast<float>(static_cast<const __nv_bfloat16*>(data)[i]);
}

// op(X) with `rows` rows: element (r, c) lies at r + c pitch, or at c + r pitch if transposed.
Numbers load(const void* data, int type, int transposed, int rows, int columns, int pitch) {
  Numbers out{rows, columns, std::vector<float>(static_cast<std::size_t>(rows) * columns)};
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < columns; ++c) {
      out.value[r * columns + c] = number(data, type, transposed ? c + r * pitch : r + c * pitch);
    }
  }
  return out;
}

// The 11 bits that TensorFloat-32 keeps; the rest is dropped.
void truncate(Numbers& numbers) {
  for (float& value : numbers.value) value = std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) & ~0x1fffu);
}

// A sum of products as tensor cores form it: some products and the sum so far are shifted to the largest exponent,
// bits below float32's last one and the guard bits fall off, and so do those of the result. A V100 takes four products
// at once and has no guard bits; sixteen and two gave the mean errors of an H100 (0.74, 20.7, 101.7 and 213.5 x 2^-24
// for 16, 256, 1,024 and 2,048 positive terms) to a hundredth.
float truncated_sum(const Numbers& a, const Numbers& b, int i, int j, int guard_bits) {
  const int at_once = guard_bits == 0 ? 4 : 16;
  double sum = 0;
  for (int start = 0; start < a.columns; start += at_once) {
    const int end = std::min(start + at_once, a.columns);
    int largest = sum == 0 ? -1000 : std::ilogb(sum);
    for (int k = start; k < end; ++k) {
      if (a.at(i, k) == 0 || b.at(k, j) == 0) continue;
      largest = std::max(largest, std::ilogb(a.at(i, k)) + std::ilogb(b.at(k, j)));
    }
    const double unit = std::ldexp(1.0, largest - 23 - guard_bits);
    double total = std::trunc(sum / unit) * unit;
    for (int k = start; k < end; ++k) {
      total += std::trunc(double{a.at(i, k)} * double{b.at(k, j)} / unit) * unit;
    }
    const double last = total == 0 ? 1 : std::ldexp(1.0, std::ilogb(total) - 23);
    sum = std::trunc(total / last) * last;
  }
  return static_cast<float>(sum);
}

// numbers: op(B)^T op(A)^T, as rows of C's columns
void store(const Numbers& numbers, float* out, int pitch, bool add) {
  for (int r = 0; r < numbers.rows; ++r) {
    float* const row = out + static_cast<std::int64_t>(r) * pitch;
    for (int c = 0; c < numbers.columns; ++c) row[c] = numbers.at(r, c) + (add ? row[c] : 0.0f);
  }
}

// By PyTorch: [m, k] x [k, n], both row by row.
Numbers multiply(const Numbers& a, const Numbers& b) {
  using torch::stable::detail::from;
  Numbers out{a.rows, b.columns, std::vector<float>(static_cast<std::size_t>(a.rows) * b.columns)};
  const auto tensor = [](const Numbers& numbers) {
    return torch::stable::from_blob(const_cast<float*>(numbers.value.data()), {numbers.rows, numbers.columns},
                                    {numbers.columns, 1}, torch::stable::Device(torch::headeronly::DeviceType::CPU),
                                    ScalarType::Float);
  };
  std::array<StableIValue, 3> stack{from(tensor(a)), from(tensor(b)), from(tensor(out))};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::mm", "out", stack.data(), TORCH_ABI_VERSION));
  torch::stable::detail::to<Tensor>(stack[0]);  // takes ownership of the returned handle
  return out;
}

}  // namespace

std::int32_t torch_get_current_cuda_blas_handle(void** handle) {
  simt::check_device("torch_get_current_cuda_blas_handle");
  the_handle.math = settings.tensor_float_32 ? kTensorFloat32 : 0;
  *handle = &the_handle;
  return 0;
}

int cublasSetMathMode(void* handle, int mode) {
  static_cast<Handle*>(handle)->math = mode;
  return kSuccess;
}

const char* cublasGetStatusString(int status) {
  return status == kInvalidValue   ? "the requested functionality has an invalid value"
         : status == kNotSupported ? "the requested functionality is not supported"
                                   : "the function failed to launch on the GPU";
}

int cublasGemmEx(void* handle, int a_transposed, int b_transposed, int m, int n, int k, const void* alpha,
                 const void* a, int a_type, int a_pitch, const void* b, int b_type, int b_pitch, const void* beta,
                 void* c, int c_type, int c_pitch, int compute_type, int) {
  if (settings.failure != 0) return std::exchange(settings.failure, 0);
  if (a_type != b_type || c_type != kFloat || compute_type != kCompute32F) return kNotSupported;
  if (a_type != kFloat && a_type != kHalf && a_type != kBFloat16) return kNotSupported;
  const float kept = *static_cast<const float*>(beta);
  if (*static_cast<const float*>(alpha) != 1 || (kept != 0 && kept != 1)) return kNotSupported;
  if (m < 1 || n < 1 || k < 1 || a_pitch < (a_transposed ? k : m) || b_pitch < (b_transposed ? n : k) || c_pitch < m) {
    return kInvalidValue;
  }
  // C^T = op(B)^T op(A)^T: the transposes are what lies row by row.
  Numbers left = load(b, b_type, !b_transposed, n, k, b_pitch), right = load(a, a_type, !a_transposed, k, m, a_pitch);
  if (a_type == kFloat && static_cast<Handle*>(handle)->math == kTensorFloat32) {
    truncate(left);
    truncate(right);
  }
  Numbers out{n, m, {}};
  if (a_type != kFloat && settings.guard_bits >= 0) {
    out.value.resize(static_cast<std::size_t>(n) * m);
    for (int i = 0; i < n; ++i) {
      for (int j = 0; j < m; ++j) {
        out.value[static_cast<std::size_t>(i) * m + j] = truncated_sum(left, right, i, j, settings.guard_bits);
      }
    }
  } else {
    out = multiply(left, right);
  }
  store(out, static_cast<float*>(c), c_pitch, kept == 1);
  return kSuccess;
}

int cublasGemmStridedBatchedEx(void* handle, int a_transposed, int b_transposed, int m, int n, int k, const void* alpha,
                               const void* a, int a_type, int a_pitch, long long a_step, const void* b, int b_type,
                               int b_pitch, long long b_step, const void* beta, void* c, int c_type, int c_pitch,
                               long long c_step, int count, int compute_type, int algorithm) {
  const auto further = [](const void* data, int type, long long numbers) {
    return static_cast<const char*>(data) + numbers * (type == kFloat ? 4 : 2);
  };
  for (int i = 0; i < count; ++i) {
    const int status = cublasGemmEx(handle, a_transposed, b_transposed, m, n, k, alpha, further(a, a_type, i * a_step),
                                    a_type, a_pitch, further(b, b_type, i * b_step), b_type, b_pitch, beta,
                                    static_cast<float*>(c) + i * c_step, c_type, c_pitch, compute_type, algorithm);
    if (status != kSuccess) return status;
  }
  return kSuccess;
}

// For the Python tests.
extern "C" __attribute__((visibility("default"))) void simt_set_products(int tensor_float_32, int guard_bits,
                                                                         int failure) {
  settings = {tensor_float_32 != 0, guard_bits, failure};
}
