// Support samples and their gradient (ISE, section 3.2).
#include <tuple>

#include "../check_head.h"
#include "head.cuh"

namespace ise_fast {
namespace {

// df = sum over j of (g_j - (g_j . s_j) s_j) / n_j; a warp a feature.
__global__ void support_gradient(const float* grad, const float* supports, const float* norms, float* out, int64_t rows,
                                 int64_t d, int64_t k) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kHeadWarps + threadIdx.x / kWarpSize;
  if (i >= rows) return;
  const int lane = threadIdx.x % kWarpSize;
  for (int64_t c = lane; c < d; c += kWarpSize) out[i * d + c] = 0.0f;
  for (int64_t s = i * k; s < (i + 1) * k; ++s) {
    const float along = static_cast<float>(-warp_dot(grad + s * d, supports + s * d, d) / norms[s]);
    const float inverse = 1.0f / norms[s];
    for (int64_t c = lane; c < d; c += kWarpSize) {
      out[i * d + c] = (out[i * d + c] + inverse * grad[s * d + c]) + along * supports[s * d + c];
    }
  }
}

std::tuple<Tensor, Tensor> support_samples(const Tensor& features, const Tensor& centroids, const Tensor& labels,
                                           const Tensor& nearest, double degree) {
  check_support_samples(features, centroids, labels, nearest, degree);
  check_matrix(features, "features");
  const DeviceScope device(features);
  const Tensor f = device_contiguous(features), c = device_contiguous(centroids), y = device_contiguous(labels),
               m = device_contiguous(nearest);
  const int64_t rows = f.size(0), d = f.size(1), clusters = c.size(0), k = m.size(1);
  Tensor supports = device_empty(f, {rows, k, d});
  Tensor norms = device_empty(f, {rows, k});
  if (rows * k == 0) return {supports, norms};
  LAUNCH(support_rows, static_cast<unsigned>(rows * k), kHeadThreads, 0, current_stream(f), f.const_data_ptr<float>(),
         c.const_data_ptr<float>(), y.const_data_ptr<int64_t>(), m.const_data_ptr<int64_t>(),
         supports.mutable_data_ptr<float>(), norms.mutable_data_ptr<float>(), rows, clusters, d, k,
         Degree{static_cast<float>(degree), nullptr});
  return {supports, norms};
}

Tensor support_samples_backward(const Tensor& grad, const Tensor& features, const Tensor& supports,
                                const Tensor& norm) {
  check_support_samples_backward(grad, features, supports, norm);
  const DeviceScope device(features);
  const Tensor g = device_contiguous(grad);
  const int64_t rows = supports.size(0), k = supports.size(1), d = supports.size(2);
  Tensor out = device_empty(supports, {rows, d});
  if (rows == 0) return out;
  LAUNCH(support_gradient, blocks_for(rows, kHeadWarps), kHeadThreads, 0, current_stream(g), g.const_data_ptr<float>(),
         supports.const_data_ptr<float>(), norm.const_data_ptr<float>(), out.mutable_data_ptr<float>(), rows, d, k);
  return out;
}

}  // namespace

ISE_FAST_CUDA_OPERATORS(m) {
  m.impl("support_samples", TORCH_BOX(&support_samples));
  m.impl("support_samples_backward", TORCH_BOX(&support_samples_backward));
}

}  // namespace ise_fast
