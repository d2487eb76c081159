// The k centroids most similar to each feature, own centroid excluded (ISE, section 3.2).
#include <algorithm>
#include <cmath>
#include <memory>
#include <tuple>

#include "../check_head.h"
#include "head.h"
#include "matrix.h"
#include "nearest.h"
#include "operator.h"

namespace ise_fast {
namespace {

template <class T>
std::tuple<Tensor, Tensor> nearest(const Tensor& features, const Tensor& centroids, const Tensor& labels, int64_t k) {
  const Head<T> head(features, centroids, labels);
  const int64_t rows = head.rows, clusters = head.clusters, d = head.d;
  Tensor similarity = new_tensor(head.feature_tensor, {rows, k});
  Tensor indices = new_tensor(labels, {rows, k});
  auto* out_similarity = similarity.mutable_data_ptr<T>();
  auto* out_index = indices.mutable_data_ptr<int64_t>();

  const double longest = head.longest_centroid();
  check_products<T>(head.norm, longest);
  const ProductError<T> error(d, longest);
  const int64_t block = head.row_block();
  const std::unique_ptr<T[]> products(new T[block * clusters]);
  for (int64_t begin = 0; begin < rows; begin += block) {
    const int64_t count = std::min(block, rows - begin);
    multiply<T>({products.get(), count, clusters, clusters}, head.f().block(begin, count, 0, d), head.c().transposed());
    parallel_for(0, count, 8, [&](int64_t first, int64_t last) {
      NearestOfRow<T> search;
      for (int64_t r = first; r < last; ++r) {
        const int64_t i = begin + r;
        const auto& best = search.find(products.get() + r * clusters, clusters, head.label[i], k, error(head.norm[i]),
                                       head.feature + i * d, head.centroid, d);
        for (int64_t j = 0; j < k; ++j) {
          out_similarity[i * k + j] = best[j].similarity;
          out_index[i * k + j] = best[j].index;
        }
      }
    });
  }
  return {similarity, indices};
}

std::tuple<Tensor, Tensor> nearest_centroids(const Tensor& features, const Tensor& centroids, const Tensor& labels,
                                             int64_t k) {
  check_nearest_centroids(features, centroids, labels, k);
  return features.scalar_type() == ScalarType::Double ? nearest<double>(features, centroids, labels, k)
                                                      : nearest<float>(features, centroids, labels, k);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ise_fast, CPU, m) {
  m.impl("nearest_centroids", OPERATOR(nearest_centroids));
}

}  // namespace ise_fast
