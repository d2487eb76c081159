// The libraries' side: what the operators ask of PyTorch's device and of cuBLAS is counted here and done by the CPU. At
// the end, the functions that Python calls.
#include <dlfcn.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <string>
#include <vector>

#include "counts.h"
#include "runtime.h"

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using torch::stable::detail::from;

template <class Function>
Function function_of(void* library, const char* name) {
  return reinterpret_cast<Function>(dlsym(library, name));
}

void pause_allocations(bool paused) {
  static const auto pause = function_of<void (*)(bool)>(RTLD_DEFAULT, "ptx_allocations_pause");
  if (pause) pause(paused);
}

// out [rows, columns] = left [rows, depth] right [depth, columns], each with the distance between its rows and between
// its columns. Products of two f16 or bf16 numbers are exact in f32, so converting first is the same.
struct Matrix {
  const void* data;
  int rows, columns;
  std::int64_t down, across;
};

Tensor as_tensor(const Matrix& matrix, ScalarType type) {
  return torch::stable::from_blob(const_cast<void*>(matrix.data), {matrix.rows, matrix.columns},
                                  {matrix.down, matrix.across},
                                  torch::stable::Device(torch::headeronly::DeviceType::CPU), type);
}

// The second of two that are added lies row by row in `from`.
void add(const Matrix& out, const std::vector<float>& from) {
  auto* const to = static_cast<float*>(const_cast<void*>(out.data));
  for (std::int64_t r = 0; r < out.rows; ++r) {
    for (std::int64_t c = 0; c < out.columns; ++c) to[r * out.down + c] += from[r * out.columns + c];
  }
}

// One call of the library.
void count_products(const Matrix& out, const Matrix& left, const Matrix& right, ScalarType type, int count) {
  const auto pitch = [](const Matrix& matrix) { return std::max(matrix.down, matrix.across); };
  const bool is_float = type == ScalarType::Float;
  ptx::counts().events.push_back({"product",
                                  is_float ? "float32" : "float16",
                                  {{"m", out.rows},
                                   {"n", out.columns},
                                   {"k", left.columns},
                                   {"bytes", is_float ? 4 : 2},
                                   {"pitch_a", pitch(left)},
                                   {"pitch_b", pitch(right)},
                                   {"pitch_out", out.down},
                                   {"count", count}}});
}

void multiply(const Matrix& out, const Matrix& left, const Matrix& right, ScalarType type, bool adds) {
  if (!ptx::settings().executes) return;
  pause_allocations(true);  // what the library of a CPU takes is not what one of a GPU takes
  {
    const auto wide = [&](const Matrix& matrix) {
      return torch::stable::to(as_tensor(matrix, type), ScalarType::Float);
    };
    std::vector<float> apart(adds ? static_cast<std::size_t>(out.rows) * out.columns : 0);
    const Matrix target = adds ? Matrix{apart.data(), out.rows, out.columns, out.columns, 1} : out;
    std::array<StableIValue, 3> stack{from(wide(left)), from(wide(right)), from(as_tensor(target, ScalarType::Float))};
    TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::mm", "out", stack.data(), TORCH_ABI_VERSION));
    torch::stable::detail::to<Tensor>(stack[0]);  // takes ownership of the returned handle
    if (adds) add(out, apart);
  }
  pause_allocations(false);
}

}  // namespace

namespace ptx {

std::vector<Range> allocated() {
  using Snapshot = std::size_t (*)(std::uint64_t*, std::size_t);
  static const auto snapshot = function_of<Snapshot>(RTLD_DEFAULT, "ptx_allocations");
  if (!snapshot) return {{0, kSharedWindow}};
  std::vector<std::uint64_t> bounds(1 << 16);
  std::vector<Range> ranges(snapshot(bounds.data(), bounds.size() / 2));
  for (std::size_t i = 0; i < ranges.size(); ++i) ranges[i] = {bounds[2 * i], bounds[2 * i + 1]};
  return ranges;
}

}  // namespace ptx

extern "C" {

// PyTorch's and cuBLAS's: the operators of this library, and nobody else, find ours.
AOTITorchError aoti_torch_create_device_guard(std::int32_t, DeviceGuardHandle* guard) {
  *guard = nullptr;
  return 0;
}
AOTITorchError aoti_torch_delete_device_guard(DeviceGuardHandle) {
  return 0;
}
AOTITorchError aoti_torch_get_current_cuda_stream(std::int32_t, void** stream) {
  *stream = nullptr;
  return 0;
}

AOTITorchError torch_get_current_cuda_blas_handle(void** handle) {
  *handle = nullptr;
  return 0;
}
int cublasSetMathMode(void*, int) {
  return 0;
}
const char* cublasGetStatusString(int) {
  return "an error that the interpreter's library does not have";
}
// Column by column: the transposes, C^T = op(B)^T op(A)^T, are what lies row by row.
int cublasGemmStridedBatchedEx(void*, int a_transposed, int b_transposed, int m, int n, int k, const void*,
                               const void* a, int a_type, int a_pitch, long long a_step, const void* b, int b_type,
                               int b_pitch, long long b_step, const void* beta, void* c, int, int c_pitch,
                               long long c_step, int count, int, int) {
  constexpr int kFloat = 0, kHalf = 2, kNotSupported = 15;
  if (a_type != b_type) return kNotSupported;
  const auto matrix = [](const void* data, int rows, int columns, std::int64_t pitch, bool by_rows) {
    return Matrix{data, rows, columns, by_rows ? pitch : 1, by_rows ? 1 : pitch};
  };
  const auto type = a_type == kFloat ? ScalarType::Float : a_type == kHalf ? ScalarType::Half : ScalarType::BFloat16;
  const int size = a_type == kFloat ? 4 : 2;
  for (int i = 0; i < count; ++i) {
    const Matrix out = matrix(static_cast<float*>(c) + i * c_step, n, m, c_pitch, true),
                 left = matrix(static_cast<const char*>(b) + i * b_step * size, n, k, b_pitch, !b_transposed),
                 right = matrix(static_cast<const char*>(a) + i * a_step * size, k, m, a_pitch, !a_transposed);
    if (i == 0) count_products(out, left, right, type, count);
    multiply(out, left, right, type, *static_cast<const float*>(beta) == 1);
  }
  return 0;
}
int cublasGemmEx(void* handle, int a_transposed, int b_transposed, int m, int n, int k, const void* alpha,
                 const void* a, int a_type, int a_pitch, const void* b, int b_type, int b_pitch, const void* beta,
                 void* c, int c_type, int c_pitch, int compute_type, int algorithm) {
  return cublasGemmStridedBatchedEx(handle, a_transposed, b_transposed, m, n, k, alpha, a, a_type, a_pitch, 0, b,
                                    b_type, b_pitch, 0, beta, c, c_type, c_pitch, 0, 1, compute_type, algorithm);
}

// csrc/cuda/device.h asks how much scratch to plan.
std::int64_t ptx_at_once(std::int64_t numbers) {
  return std::min(numbers, ptx::settings().most_numbers);
}

// csrc/cuda/cub.cu tells what it would have asked of CUB.
void ptx_count_cub(const char* name, std::int64_t n, int bits) {
  ptx::counts().events.push_back({"cub", name, {{"n", n}, {"bits", bits}}});
}

// For Python. The first three have the names and arguments of tests/simt, whose tests run here as well.
__attribute__((visibility("default"))) void simt_set_schedule(std::uint64_t seed) {
  ptx::settings().schedule = seed;
}
__attribute__((visibility("default"))) void simt_set_device(int multiprocessors, std::int64_t memory, std::int64_t,
                                                            std::int64_t most_numbers, int, int) {
  ptx::settings().multiprocessors = multiprocessors;
  ptx::settings().memory_bytes = static_cast<std::size_t>(memory);
  ptx::settings().most_numbers = most_numbers;
}
// Names of the kernels launched since the counts were last cleared, a line each.
__attribute__((visibility("default"))) const char* simt_launched() {
  static std::string names;
  names.clear();
  for (const auto& [symbol, kernel] : ptx::counts().kernels) names += kernel.kernel->name + '\n';
  return names.c_str();
}
__attribute__((visibility("default"))) void ptx_set_executes(bool executes) {
  ptx::settings().executes = executes;
}
__attribute__((visibility("default"))) void ptx_set_limit(std::uint64_t instructions) {
  ptx::settings().limit = instructions;
}
__attribute__((visibility("default"))) void ptx_clear() {
  ptx::counts() = {};
  if (const auto clear = function_of<void (*)()>(RTLD_DEFAULT, "ptx_allocations_clear")) clear();
}
__attribute__((visibility("default"))) void ptx_write_counts(const char* path) {
  using Totals = void (*)(std::uint64_t*, std::uint64_t*);
  if (const auto totals = function_of<Totals>(RTLD_DEFAULT, "ptx_allocations_totals")) {
    totals(&ptx::counts().allocations, &ptx::counts().peak_bytes);
  }
  std::ofstream out(path);
  ptx::counts().write(out);
}

}  // extern "C"
