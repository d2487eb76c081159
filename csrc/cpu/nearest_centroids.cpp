// The k centroids most similar to each feature, own centroid excluded (ISE, section 3.2).
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "../check.h"
#include "../math/dot.h"
#include "../math/ordered_key.h"

namespace ise_fast {
namespace {

std::tuple<Tensor, Tensor> nearest_centroids(const Tensor& features, const Tensor& centroids, const Tensor& labels,
                                             int64_t k) {
  check_nearest_centroids(features, centroids, labels, k);
  const Tensor f = torch::stable::contiguous(features), c = torch::stable::contiguous(centroids),
               y = torch::stable::contiguous(labels);
  const int64_t rows = f.size(0), d = f.size(1), clusters = c.size(0);
  const auto* label = y.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < rows; ++i) {
    check(0 <= label[i] && label[i] < clusters, "labels: expected 0 to ", clusters - 1, ", got ", label[i], " at row ",
          i);
  }

  Tensor similarity = torch::stable::new_empty(f, {rows, k});
  Tensor indices = torch::stable::new_empty(y, {rows, k});
  const auto* feature = f.const_data_ptr<float>();
  const auto* centroid = c.const_data_ptr<float>();
  auto* out_similarity = similarity.mutable_data_ptr<float>();
  auto* out_index = indices.mutable_data_ptr<int64_t>();

  torch::stable::parallel_for(0, rows, 1, [&](int64_t begin, int64_t end) {
    std::vector<uint64_t> keys(clusters);
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t j = 0; j < clusters; ++j) {
        keys[j] = descending_key(static_cast<float>(dot(feature + i * d, centroid + j * d, d)), j);
      }
      keys[label[i]] = kWorstKey;
      std::partial_sort(keys.begin(), keys.begin() + k, keys.end());
      for (int64_t r = 0; r < k; ++r) {
        out_similarity[i * k + r] = descending_value(keys[r]);
        out_index[i * k + r] = key_index(keys[r]);
      }
    }
  });
  return {similarity, indices};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ise_fast, CPU, m) {
  m.impl("nearest_centroids", TORCH_BOX(&nearest_centroids));
}

}  // namespace ise_fast
