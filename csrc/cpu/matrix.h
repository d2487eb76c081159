// Matrix products by PyTorch's library whose bits do not depend on the number of threads.
//
// MKL may split a sum differently for another number of threads. So the result is cut here, into tiles that depend on
// its shape alone, and every tile is one single-threaded call inside a parallel region.
#pragma once

#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cpu.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "parallel.h"

namespace ise_fast {

// A view of a row-major matrix or of its transpose.
template <class T>
struct Matrix {
  T* data;
  int64_t rows, columns, row_stride, column_stride = 1;

  Matrix transposed() const { return {data, columns, rows, column_stride, row_stride}; }
  Matrix block(int64_t row, int64_t row_count, int64_t column, int64_t column_count) const {
    return {data + row * row_stride + column * column_stride, row_count, column_count, row_stride, column_stride};
  }
  torch::stable::Tensor tensor() const {
    using torch::headeronly::ScalarType;
    constexpr auto type = std::is_same_v<std::remove_const_t<T>, double> ? ScalarType::Double : ScalarType::Float;
    return torch::stable::from_blob(const_cast<std::remove_const_t<T>*>(data), {rows, columns},
                                    {row_stride, column_stride},
                                    torch::stable::Device(torch::headeronly::DeviceType::CPU), type);
  }
};

// torch says why a call of its C interface failed since 2.12 only; before, it just prints it.
extern "C" const char* torch_exception_get_what_without_backtrace() __attribute__((weak));

inline void check_library(AOTITorchError status, const char* what) {
  if (status == AOTI_TORCH_SUCCESS) [[likely]]
    return;
  const bool known = torch_exception_get_what_without_backtrace != nullptr;
  throw std::runtime_error(
      std::string(what) + ": " +
      (known ? torch_exception_get_what_without_backtrace() : "failed in torch, which printed why"));
}

// out = a b, or out += a b, by one thread. Past the dispatcher: autocast, which may be active around us, has no say.
template <class T>
void multiply_tile(Matrix<T> out, Matrix<const T> a, Matrix<const T> b, bool add) {
  const torch::stable::Tensor result = out.tensor(), left = a.tensor(), right = b.tensor();
  if (add) {
    check_library(aoti_torch_cpu_addmm_out(result.get(), result.get(), left.get(), right.get(), 1.0, 1.0),
                  "matrix product");
  } else {
    check_library(aoti_torch_cpu_mm_out(result.get(), left.get(), right.get()), "matrix product");
  }
}

// Relative error of the factors of the library's product: 0 unless the user let torch round float32 to bfloat16 or
// TensorFloat-32 (torch.set_float32_matmul_precision), which only a try reveals.
inline double factor_rounding() {
  constexpr int64_t n = 64;
  constexpr float probe = 1.0f + 0x1p-12f;  // neither short format holds it
  const std::vector<float> a(n * n, probe);
  std::vector<float> out(n * n);
  multiply_tile(Matrix<float>{out.data(), n, n, n}, Matrix<const float>{a.data(), n, n, n},
                Matrix<const float>{a.data(), n, n, n}, false);
  const double error = std::abs(out[0] / (n * double{probe} * double{probe}) - 1);
  return error < 0x1p-16 ? 0.0 : 0x1p-8;
}

// body(i) for 0 <= i < count, the last one first; an idle thread takes the next. One thread would run outside a
// parallel region, where MKL starts its own.
template <class Body>
void parallel_tasks(int64_t count, const Body& body) {
  constexpr int64_t kLeastThreads = 2;
  const auto run = [&](Blocks& next) {
    for (int64_t i = next(); i < count; i = next()) body(count - 1 - i);
  };
  parallel_blocks(count, run, kLeastThreads);
}

inline constexpr int64_t kTileRows = 256;
inline constexpr int64_t kTileColumns = 256;

// Width of equal tiles of at most `most`, a multiple of 8 (the last tile may be narrower). More than one are a multiple
// of four: an odd tile would leave threads idle.
inline int64_t tile_width(int64_t size, int64_t most) {
  int64_t tiles = std::max<int64_t>((size + most - 1) / most, 1);
  if (tiles > 1) tiles = (tiles + 3) / 4 * 4;
  return std::max<int64_t>((size + tiles - 1) / tiles + 7, 8) / 8 * 8;
}

// out = a b, or out += a b. upper: the result is square and symmetric, and only the part on and above the diagonal
// (by tiles) is written.
template <class T>
void multiply(Matrix<T> out, Matrix<const T> a, Matrix<const T> b, bool add = false, bool upper = false) {
  if (out.rows == 0 || out.columns == 0) return;
  const int64_t height = tile_width(out.rows, kTileRows);
  const int64_t width = tile_width(out.columns, upper ? kTileColumns / 4 : kTileColumns);
  const int64_t down = (out.rows + height - 1) / height, across = (out.columns + width - 1) / width;
  parallel_tasks(down * across, [&](int64_t tile) {
    const int64_t row = tile % down * height, column = tile / down * width;
    const int64_t columns = std::min(width, out.columns - column);
    const int64_t rows = std::min(height, (upper ? std::min(out.rows, column + columns) : out.rows) - row);
    if (rows <= 0) return;
    multiply_tile(out.block(row, rows, column, columns), a.block(row, rows, 0, a.columns),
                  b.block(0, b.rows, column, columns), add);
  });
}

}  // namespace ise_fast
