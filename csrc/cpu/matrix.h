// Matrix products by PyTorch's library whose bits do not depend on the number of threads.
//
// MKL may split a sum differently for another number of threads. So the result is cut here, into tiles that depend on
// its shape alone, and every tile is one single-threaded call inside a parallel region.
#pragma once

#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cpu.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <type_traits>

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

// out = a b, or out += a b, by one thread. Past the dispatcher: autocast, which may be active around us, has no say.
template <class T>
void multiply_tile(Matrix<T> out, Matrix<const T> a, Matrix<const T> b, bool add) {
  const torch::stable::Tensor result = out.tensor(), left = a.tensor(), right = b.tensor();
  if (add) {
    TORCH_ERROR_CODE_CHECK(aoti_torch_cpu_addmm_out(result.get(), result.get(), left.get(), right.get(), 1.0, 1.0));
  } else {
    TORCH_ERROR_CODE_CHECK(aoti_torch_cpu_mm_out(result.get(), left.get(), right.get()));
  }
}

// body(i) for 0 <= i < count, the last one first; an idle thread takes the next. A range of one would run outside a
// parallel region, where MKL starts its own threads: it is padded to two.
template <class Body>
void parallel_tasks(int64_t count, const Body& body) {
  std::atomic<int64_t> left{count};
  torch::stable::parallel_for(0, std::max<int64_t>(count, 2), 1, [&](int64_t, int64_t) {
    for (int64_t i = left.fetch_sub(1); i > 0; i = left.fetch_sub(1)) body(i - 1);
  });
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
