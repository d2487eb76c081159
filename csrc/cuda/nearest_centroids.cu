// The k centroids most similar to each feature, own centroid excluded (ISE, section 3.2).
#include <algorithm>
#include <tuple>

#include "../check_head.h"
#include "split.cuh"

namespace ise_fast {
namespace {

std::tuple<Tensor, Tensor> nearest_centroids(const Tensor& features, const Tensor& centroids, const Tensor& labels,
                                             int64_t k) {
  check_nearest_centroids(features, centroids, labels, k);
  check_matrix(features, "features");
  const DeviceScope device(features);
  const Tensor f = device_contiguous(features), c = device_contiguous(centroids), y = device_contiguous(labels);
  const int64_t rows = f.size(0), d = f.size(1), clusters = c.size(0);
  Tensor similarity = device_empty(f, {rows, k});
  Tensor indices = device_empty(y, {rows, k});
  if (rows == 0) return {similarity, indices};

  const cudaStream_t stream = current_stream(f);
  Tensor longest = device_zeros(y, {1});
  auto* const longest_bits = reinterpret_cast<unsigned*>(longest.mutable_data_ptr<int64_t>());
  LAUNCH(longest_centroid, blocks_for(clusters, kHeadWarps), kHeadThreads, 0, stream, c.const_data_ptr<float>(),
         nullptr, longest_bits, clusters, d);
  constexpr int64_t kScratch = int64_t{1} << 24;
  const int64_t block = std::min(rows, std::max<int64_t>(kScratch / clusters, 64));
  Tensor products = device_empty(f, {block, clusters});
  const Parts parts = filter_parts(c);
  const Factor centroids_factor = factor_of(c, parts), features_factor = factor_of(f, parts);
  for (int64_t begin = 0; begin < rows; begin += block) {
    const int64_t count = std::min(block, rows - begin);
    Tensor z = torch::stable::narrow(products, 0, 0, count);
    const Factor f_block = features_factor.part(begin, count);
    multiply_transposed(z, f_block, centroids_factor);
    LAUNCH(nearest_of_rows, static_cast<unsigned>(count), kHeadThreads, 0, stream, z.const_data_ptr<float>(),
           f_block.rows.const_data_ptr<float>(), c.const_data_ptr<float>(), y.const_data_ptr<int64_t>() + begin,
           longest_bits, similarity.mutable_data_ptr<float>() + begin * k,
           indices.mutable_data_ptr<int64_t>() + begin * k, 0, clusters, clusters, d, k, centroids_factor.error(), 0.0);
  }
  return {similarity, indices};
}

}  // namespace

ISE_FAST_CUDA_OPERATORS(m) {
  m.impl("nearest_centroids", TORCH_BOX(&nearest_centroids));
}

}  // namespace ise_fast
