// Support samples and their gradient (ISE, section 3.2).
#include "supports.h"

#include <tuple>
#include <vector>

#include "operator.h"

namespace ise_fast {
namespace {

template <class T>
std::tuple<Tensor, Tensor> supports_of(const Tensor& features, const Tensor& centroids, const Tensor& labels,
                                       const Tensor& nearest_tensor, double degree) {
  const Head<T> head(features, centroids, labels);
  const int64_t k = nearest_tensor.size(1);
  const std::vector<int64_t> nearest = checked_labels(nearest_tensor, head.clusters, "nearest");
  Tensor rows = new_tensor(head.feature_tensor, {head.rows, k, head.d});
  Tensor norm = new_tensor(head.feature_tensor, {head.rows, k});
  const Supports<T> supports{k, nearest.data(), rows.mutable_data_ptr<T>(), norm.mutable_data_ptr<T>()};
  parallel_for(0, head.rows, 4, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) fill_supports(head, supports, static_cast<T>(degree), i);
  });
  check_supports(head, supports);
  return {rows, norm};
}

std::tuple<Tensor, Tensor> support_samples(const Tensor& features, const Tensor& centroids, const Tensor& labels,
                                           const Tensor& nearest, double degree) {
  check_support_samples(features, centroids, labels, nearest, degree);
  return features.scalar_type() == ScalarType::Double
             ? supports_of<double>(features, centroids, labels, nearest, degree)
             : supports_of<float>(features, centroids, labels, nearest, degree);
}

// df = sum over j of (g_j - (g_j . s_j) s_j) / n_j
template <class T>
Tensor backward(const Tensor& grad_tensor, const Tensor& support_tensor, const Tensor& norm_tensor) {
  const Tensor grad = row_major(grad_tensor), supports = row_major(support_tensor), norms = row_major(norm_tensor);
  const int64_t rows = supports.size(0), k = supports.size(1), d = supports.size(2);
  Tensor out = new_tensor(supports, {rows, d});
  const T *g = grad.const_data_ptr<T>(), *s = supports.const_data_ptr<T>(), *norm = norms.const_data_ptr<T>();
  T* const result = out.mutable_data_ptr<T>();
  parallel_for(0, rows, 4, [&](int64_t begin, int64_t end) {
    std::vector<Term<T>> terms(2 * k);
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t j = 0; j < k; ++j) {
        const int64_t r = i * k + j;
        const double along = inner_product(g + r * d, s + r * d, d);
        terms[2 * j] = {T{1} / norm[r], g + r * d};
        terms[2 * j + 1] = {static_cast<T>(-along / norm[r]), s + r * d};
      }
      combine(result + i * d, false, terms.data(), 2 * k, 0, d);
    }
  });
  return out;
}

Tensor support_samples_backward(const Tensor& grad, const Tensor& features, const Tensor& supports,
                                const Tensor& norm) {
  check_support_samples_backward(grad, features, supports, norm);
  return features.scalar_type() == ScalarType::Double ? backward<double>(grad, supports, norm)
                                                      : backward<float>(grad, supports, norm);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ise_fast, CPU, m) {
  m.impl("support_samples", OPERATOR(support_samples));
  m.impl("support_samples_backward", OPERATOR(support_samples_backward));
}

}  // namespace ise_fast
