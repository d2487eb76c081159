#include "axes.h"

#include <torch/csrc/stable/library.h>

#include <array>
#include <cmath>
#include <string>
#include <utility>

#include "matrix.h"
#include "tensors.h"

namespace ise_fast {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

Tensor matrix(int64_t rows, int64_t columns) {
  return new_tensor(torch::stable::empty({0}, ScalarType::Float), {rows, columns});
}

Matrix<float> as_matrix(Tensor& tensor) {
  return {tensor.mutable_data_ptr<float>(), tensor.size(0), tensor.size(1), tensor.size(1)};
}
Matrix<const float> as_matrix(const Tensor& tensor) {
  return {tensor.const_data_ptr<float>(), tensor.size(0), tensor.size(1), tensor.size(1)};
}

Tensor product(Matrix<const float> a, Matrix<const float> b) {
  Tensor out = matrix(a.rows, b.columns);
  multiply(as_matrix(out), a, b);
  return out;
}

// Both results of aten::linalg_qr or aten::linalg_eigh.
std::pair<Tensor, Tensor> factors(const char* name, const Tensor& of, const std::string& mode) {
  using torch::stable::detail::from;
  using torch::stable::detail::to;
  std::array<StableIValue, 2> stack{from(of), from(mode)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher(name, "", stack.data(), TORCH_ABI_VERSION));
  return {to<Tensor>(stack[0]), to<Tensor>(stack[1])};
}

Tensor orthonormal(const Tensor& columns) {
  return row_major(factors("aten::linalg_qr", columns, "reduced").first);
}

// +1 or -1, evenly and without pattern (the finaliser of splitmix64).
float sign(uint64_t i) {
  uint64_t z = (i + 1) * 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return (z >> 63) != 0 ? 1.0f : -1.0f;
}

// In float64, whose own rounding is far below what float32 columns leave.
double measured_skew(const std::vector<float>& q, int64_t d, int64_t width) {
  const std::vector<double> wide(q.begin(), q.end());
  std::vector<double> gram(width * width);
  const Matrix<const double> columns{wide.data(), d, width, width};
  multiply(Matrix<double>{gram.data(), width, width, width}, columns.transposed(), columns);
  double sum = 0;
  for (int64_t i = 0; i < width; ++i) {
    for (int64_t j = 0; j < width; ++j) {
      const double error = gram[i * width + j] - (i == j ? 1.0 : 0.0);
      sum += error * error;
    }
  }
  return std::sqrt(sum) + static_cast<double>(d * width) * 0x1p-50;
}

}  // namespace

Axes principal_axes(const float* rows, int64_t n, int64_t d, int64_t samples, int64_t width) {
  samples = std::min(samples, n);
  width = std::min(width, d);
  Tensor sample = matrix(samples, d);
  auto* to = sample.mutable_data_ptr<float>();
  for (int64_t s = 0; s < samples; ++s) std::copy_n(rows + s * n / samples * d, d, to + s * d);
  Tensor mix = matrix(samples, width);
  for (int64_t i = 0; i < samples * width; ++i) mix.mutable_data_ptr<float>()[i] = sign(i);

  const Matrix<const float> from = as_matrix(std::as_const(sample));
  Tensor q = orthonormal(product(from.transposed(), as_matrix(std::as_const(mix))));
  Tensor along = product(from, as_matrix(std::as_const(q)));
  q = orthonormal(product(from.transposed(), as_matrix(std::as_const(along))));
  along = product(from, as_matrix(std::as_const(q)));
  const Matrix<const float> b = as_matrix(std::as_const(along));
  const Tensor turn = row_major(factors("aten::linalg_eigh", product(b.transposed(), b), "L").second);
  const Tensor turned = product(as_matrix(std::as_const(q)), as_matrix(turn));  // the least energy first

  Axes axes{std::vector<float>(d * width), d, width, 0};
  const auto* out = turned.const_data_ptr<float>();
  for (int64_t c = 0; c < d; ++c) {
    std::reverse_copy(out + c * width, out + (c + 1) * width, axes.q.data() + c * width);
  }
  axes.skew = measured_skew(axes.q, d, width);
  return axes;
}

}  // namespace ise_fast
