// The ISE objective and the Cluster-Contrast loss, each with its gradient (algebra: docs/architecture.md,
// "The ISE head in two products").
//
// The loss is a scalar, so its gradient is known up to a factor when the forward pass ends. It is computed there, while
// the products are at hand, and the backward operator only scales it: nothing of size B x K is kept between the two.
#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <optional>
#include <tuple>
#include <vector>

#include "contrastive.h"
#include "head.h"
#include "label_preserving.h"
#include "matrix.h"
#include "nearest.h"
#include "operator.h"
#include "supports.h"

namespace ise_fast {
namespace {

using Losses = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

template <class T>
Tensor scalar(const Tensor& like, double value) {
  Tensor result = new_tensor(like, {});
  *result.mutable_data_ptr<T>() = static_cast<T>(value);
  return result;
}

// Length of the longest centroid; the diagonal of the Gram matrix tells it for nothing.
template <class T>
double longest_centroid(const Head<T>& head, const T* gram) {
  if (!gram) return head.longest_centroid();
  T longest = 0;
  for (int64_t j = 0; j < head.clusters; ++j) {
    const T square = gram[j * (head.clusters + 1)];
    check(std::isfinite(square) && square >= 0, "gram: expected finite inner products of the centroids, got ", square,
          " at [", j, ", ", j, "]");
    longest = std::max(longest, square);
  }
  return std::sqrt(longest) * 1.0001;
}

// f_i . s for all supports from the products already made: (f_i . f_r + lambda (Z_i,m - Z_i,o)) / n
template <class T>
void add_similarities(const Head<T>& head, const Supports<T>& supports, T degree, const T* products,
                      LabelPreserving<T>& preserving) {
  const int64_t rows = head.rows;
  const std::unique_ptr<T[]> square(new T[rows * rows]);  // on and above the diagonal
  multiply<T>({square.get(), rows, rows, rows}, head.f(), head.f().transposed(), false, true);
  parallel_for(0, rows, 4, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const T* z = products + i * head.clusters;
      preserving.add_row(i, [&](int64_t r, int64_t s) {
        const T ff = square[i < r ? i * rows + r : r * rows + i];
        return (ff + degree * (z[supports.nearest[s]] - z[head.label[r]])) / supports.norm[s];
      });
    }
  });
}

// The same directly, for batches whose products do not fit at once.
template <class T>
void add_similarities(const Head<T>& head, const Supports<T>& supports, LabelPreserving<T>& preserving) {
  const int64_t count = head.rows * supports.k;
  const std::unique_ptr<T[]> similarity(new T[kTileRows * count]);
  for (int64_t begin = 0; begin < head.rows; begin += kTileRows) {
    const int64_t rows = std::min(kTileRows, head.rows - begin);
    multiply<T>({similarity.get(), rows, count, count}, head.f().block(begin, rows, 0, head.d),
                Matrix<const T>{supports.row, count, head.d, head.d}.transposed());
    parallel_for(0, rows, 4, [&](int64_t first, int64_t last) {
      for (int64_t r = first; r < last; ++r) {
        const T* const row = similarity.get() + r * count;
        preserving.add_row(begin + r, [&](int64_t, int64_t s) { return row[s]; });
      }
    });
  }
}

// k = 0: the contrastive term of the features alone. lp_weight = 0: without the label-preserving term, which is then 0.
template <class T>
Losses losses(const Head<T>& head, double degree_value, int64_t k, double temperature, double lp_temperature,
              double lp_weight, const T* gram, bool needs_gradient) {
  const int64_t rows = head.rows, clusters = head.clusters, d = head.d;
  const T degree = static_cast<T>(degree_value);
  Tensor supports_out = new_tensor(head.feature_tensor, {rows, k, d});
  Tensor contrastive_gradient = new_tensor(head.feature_tensor, {needs_gradient ? rows : 0, d});
  const bool preserves = k > 0 && lp_weight > 0;
  Tensor lp_gradient = new_tensor(head.feature_tensor, {needs_gradient && preserves ? rows : 0, d});
  T* const gradient = needs_gradient ? contrastive_gradient.mutable_data_ptr<T>() : nullptr;

  std::vector<int64_t> nearest(rows * k);
  std::vector<T> norm(rows * k);
  const Supports<T> supports{k, nearest.data(), supports_out.mutable_data_ptr<T>(), norm.data()};
  const double longest = longest_centroid(head, gram);
  check_products<T>(head.norm, longest);
  check_temperatures<T>(longest, temperature, *std::max_element(head.norm.begin(), head.norm.end()), lp_temperature);
  const ProductError<T> error(d, longest);
  Contrastive<T> contrastive(head, supports, degree, temperature, gram, longest);
  std::optional<LabelPreserving<T>> preserving;
  if (preserves) preserving.emplace(head, supports, lp_temperature);

  std::vector<double> row_loss(rows);
  const int64_t block = head.row_block();
  {
    const std::unique_ptr<T[]> products(new T[block * clusters]);
    for (int64_t begin = 0; begin < rows; begin += block) {
      const int64_t count = std::min(block, rows - begin);
      multiply<T>({products.get(), count, clusters, clusters}, head.f().block(begin, count, 0, d),
                  head.c().transposed());
      if (k > 0) {
        parallel_for(begin, begin + count, 4, [&](int64_t first, int64_t last) {
          NearestOfRow<T> search;
          for (int64_t i = first; i < last; ++i) {
            const auto& best = search.find(products.get() + (i - begin) * clusters, clusters, head.label[i], k,
                                           error(head.norm[i]), head.feature + i * d, head.centroid, d);
            for (int64_t j = 0; j < k; ++j) nearest[i * k + j] = best[j].index;
            fill_supports(head, supports, degree, i);
          }
        });
        if (preserves && block == rows) add_similarities(head, supports, degree, products.get(), *preserving);
      }
      contrastive.run(begin, count, products.get(), row_loss.data() + begin, gradient);
    }
  }
  check_supports(head, supports);
  double contrastive_sum = 0;
  for (const double value : row_loss) contrastive_sum += value;
  const double contrastive_loss = contrastive_sum / static_cast<double>(rows * (1 + k));
  double lp_loss = 0;
  if (preserves) {
    if (block < rows) add_similarities(head, supports, *preserving);
    lp_loss = preserving->mean();
    if (needs_gradient) preserving->gradient(lp_gradient.mutable_data_ptr<T>());
  }
  if (!std::isfinite(contrastive_loss)) row_lengths(head.centroid, clusters, d, "centroids");  // gram spared the look
  check_result<T>(contrastive_loss, "temperature");
  check_result<T>(lp_loss, "lp_temperature");
  check_result<T>(contrastive_loss + lp_weight * lp_loss, "lp_weight");
  check_gradient<T>(contrastive_gradient, "temperature");
  check_gradient<T>(lp_gradient, "lp_temperature");
  const Tensor& like = head.feature_tensor;
  return {scalar<T>(like, contrastive_loss + lp_weight * lp_loss),
          scalar<T>(like, contrastive_loss),
          scalar<T>(like, lp_loss),
          supports_out,
          contrastive_gradient,
          lp_gradient};
}

Losses ise_loss(const Tensor& features, const Tensor& labels, const Tensor& centroids, double degree, int64_t k,
                double temperature, double lp_temperature, double lp_weight, const std::optional<Tensor>& gram,
                bool needs_gradient, const std::optional<Tensor>& degree_tensor) {
  check_ise_loss(features, labels, centroids, degree, k, temperature, lp_temperature, lp_weight, gram, degree_tensor);
  if (degree_tensor) {
    degree = *degree_tensor->const_data_ptr<double>();
    check_unit_interval(degree, "degree");
  }
  const auto run = [&]<class T>(T) {
    const std::optional<Tensor> g = gram ? std::optional(row_major(*gram)) : std::nullopt;
    const Head<T> head(in_dtype(features, working_dtype(features)), in_dtype(centroids, working_dtype(features)),
                       labels);
    return losses<T>(head, degree, k, temperature, lp_temperature, lp_weight, g ? g->const_data_ptr<T>() : nullptr,
                     needs_gradient);
  };
  return features.scalar_type() == ScalarType::Double ? run(double{}) : run(float{});
}

template <class T>
Tensor scaled_sum(const Tensor& a, double a_scale, const Tensor& b, double b_scale) {
  Tensor out = new_tensor(a, {a.size(0), a.size(1)});
  const int64_t d = a.size(1);
  const T *first = a.const_data_ptr<T>(), *second = b.const_data_ptr<T>();
  T* const result = out.mutable_data_ptr<T>();
  parallel_for(0, a.size(0), 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Term<T> terms[] = {{static_cast<T>(a_scale), first + i * d}, {static_cast<T>(b_scale), second + i * d}};
      combine(result + i * d, false, terms, b.size(0) ? 2 : 1, 0, d);
    }
  });
  return out;
}

// Of a tensor that check_head.h has found to be a scalar.
double scalar_value(const Tensor& tensor) {
  return tensor.scalar_type() == ScalarType::Double ? *tensor.const_data_ptr<double>()
                                                    : *tensor.const_data_ptr<float>();
}

Tensor ise_loss_backward(const Tensor& grad_loss, const Tensor& grad_contrastive, const Tensor& grad_label_preserving,
                         const Tensor& features, const Tensor& contrastive_gradient, const Tensor& lp_gradient,
                         double lp_weight) {
  check_ise_loss_backward(grad_loss, grad_contrastive, grad_label_preserving, features, contrastive_gradient,
                          lp_gradient);
  const double loss = scalar_value(grad_loss);
  const double a = loss + scalar_value(grad_contrastive), b = lp_weight * loss + scalar_value(grad_label_preserving);
  return in_dtype(features.scalar_type() == ScalarType::Double
                      ? scaled_sum<double>(contrastive_gradient, a, lp_gradient, b)
                      : scaled_sum<float>(contrastive_gradient, a, lp_gradient, b),
                  features.scalar_type());
}

std::tuple<Tensor, Tensor> cluster_nce_loss(const Tensor& features, const Tensor& labels, const Tensor& centroids,
                                            double temperature, bool needs_gradient) {
  check_cluster_nce_loss(features, labels, centroids, temperature);
  const auto run = [&]<class T>(T) {
    const Head<T> head(in_dtype(features, working_dtype(features)), in_dtype(centroids, working_dtype(features)),
                       labels);
    return losses<T>(head, 0.0, 0, temperature, 1.0, 0.0, nullptr, needs_gradient);
  };
  const Losses all = features.scalar_type() == ScalarType::Double ? run(double{}) : run(float{});
  return {std::get<0>(all), std::get<4>(all)};
}

Tensor cluster_nce_loss_backward(const Tensor& grad, const Tensor& features, const Tensor& gradient) {
  check_cluster_nce_loss_backward(grad, features, gradient);
  const Tensor none = new_tensor(gradient, {0, gradient.size(1)});
  return in_dtype(features.scalar_type() == ScalarType::Double
                      ? scaled_sum<double>(gradient, scalar_value(grad), none, 0)
                      : scaled_sum<float>(gradient, scalar_value(grad), none, 0),
                  features.scalar_type());
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ise_fast, CPU, m) {
  m.impl("ise_loss", OPERATOR(ise_loss));
  m.impl("ise_loss_backward", OPERATOR(ise_loss_backward));
  m.impl("cluster_nce_loss", OPERATOR(cluster_nce_loss));
  m.impl("cluster_nce_loss_backward", OPERATOR(cluster_nce_loss_backward));
}

}  // namespace ise_fast
