// The ISE objective and the Cluster-Contrast loss, each with its gradient, as in csrc/cpu/ise_loss.cpp: the gradient is
// known up to a factor when the forward pass ends, and the backward operator scales it.
//
// Nothing here waits for the device, and scratch depends on shapes alone: a step can be captured in a CUDA graph.
//
// Features of float16 or bfloat16: the products are made of numbers of their type, centroids, supports and weights
// rounded to it; all else, and what is returned, is float32. The nearest centroids are exact among what was given.
#include <algorithm>
#include <optional>
#include <tuple>

#include "../check_head.h"
#include "contrastive.cuh"
#include "preserving_gradient.cuh"
#include "scaled_gradient.cuh"
#include "split.cuh"
#include "wide_loss.cuh"

namespace ise_fast {
namespace {

using Losses = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

// The three scalars, by one block, rows in one order; NaN where a centroid is not finite, whose exponentials may be 0.
__global__ void reduce_losses(const double* contrastive, const double* preserving, const unsigned* longest, float* loss,
                              float* contrastive_out, float* preserving_out, int64_t rows, int64_t k,
                              double lp_weight) {
  __shared__ double scratch[kHeadWarps];
  double c = 0, p = 0;
  for (int64_t i = threadIdx.x; i < rows; i += kHeadThreads) {
    c += contrastive[i];
    if (preserving) p += preserving[i];
  }
  c = block_sum(c, scratch) / static_cast<double>(rows * (1 + k));
  p = block_sum(p, scratch) / static_cast<double>(rows);
  if (threadIdx.x == 0) {
    if (!isfinite(length_of_bits(*longest))) c = NAN;
    *contrastive_out = static_cast<float>(c);
    *preserving_out = static_cast<float>(p);
    *loss = static_cast<float>(c + lp_weight * p);
  }
}

template <class T>
T* words_of(Tensor& words) {
  return reinterpret_cast<T*>(words.mutable_data_ptr<int64_t>());
}

Tensor rows_of(const Tensor& matrix, int64_t begin, int64_t count) {
  Tensor all = matrix;
  return torch::stable::narrow(all, 0, begin, count);
}

constexpr int64_t kMostRows = 256;  // of a block whose products do not all fit

struct Options {
  Degree degree;
  double temperature, lp_temperature, lp_weight;
  int64_t k;  // 0: the contrastive term of the features alone
  bool needs_gradient;
  Parts parts;  // how rows go into products
};

Parts parts_for(const Tensor& features) {
  return features.scalar_type() == ScalarType::Half       ? Parts::kHalf
         : features.scalar_type() == ScalarType::BFloat16 ? Parts::kBFloat16
                                                          : Parts::kBoth;
}

Losses losses(const Tensor& f, const Tensor& y, const Tensor& c, const std::optional<Tensor>& gram,
              const Options& options) {
  const int64_t rows = f.size(0), d = f.size(1), clusters = c.size(0), k = options.k;
  const cudaStream_t stream = current_stream(f);
  const Parts parts = can_split(c) ? options.parts : Parts::kNone;
  const bool wide = parts == Parts::kNone && !gram && k <= kNearestAtOnce;
  const Factor features = factor_of(f, parts), centroids = factor_of(c, parts);
  const auto words = [&](int64_t count) { return device_empty(y, {std::max<int64_t>(count, 1)}); };
  Tensor supports = device_empty(f, {rows, k, d}), norms = device_empty(f, {rows, k});
  Tensor contrastive_gradient = device_empty(f, {options.needs_gradient ? rows : 0, d});
  const bool preserves = k > 0 && options.lp_weight > 0;  // a weight of 0 costs nothing
  Tensor lp_gradient = device_empty(f, {options.needs_gradient && preserves ? rows : 0, d});
  const float *feature = f.const_data_ptr<float>(), *centroid = c.const_data_ptr<float>();
  const float* const gram_data = gram ? gram->const_data_ptr<float>() : nullptr;
  const int64_t* const label = y.const_data_ptr<int64_t>();

  Tensor longest_word = device_zeros(y, {1});
  auto* const longest = words_of<unsigned>(longest_word);
  LAUNCH(longest_centroid, blocks_for(clusters, kHeadWarps), kHeadThreads, 0, stream, centroid, gram_data, longest,
         clusters, d);

  // Rows whose products with all centroids are held at once: the batch if they fit, so that the label-preserving term
  // can use them.
  const int64_t most = at_once(int64_t{1} << 25);
  const int64_t block =
      wide || rows * clusters <= most ? rows : std::min(rows, std::clamp(most / clusters, at_once(64), kMostRows));
  const int64_t width =
      gram || k == 0 ? clusters : std::min(clusters, whole_sectors(std::max<int64_t>(most / (block * k), 1)));
  // Features whose choices of supports are held at once.
  const int64_t users = preserves ? users_at_once(rows, k) : 0;
  Tensor products = device_empty(f, {wide ? 0 : block, clusters});
  Tensor nearest = words(rows * k);
  Tensor state_words = words(block * (1 + k) * static_cast<int64_t>(sizeof(RowState) / 8));
  Tensor row_losses = words(rows), lp_row_losses = words(rows);
  auto* const states = words_of<RowState>(state_words);
  const double scale = 1 / (options.temperature * static_cast<double>(rows * (1 + k)));
  Similarities similarity = {nullptr,
                             nullptr,
                             products.const_data_ptr<float>(),
                             label,
                             words_of<int64_t>(nearest),
                             norms.const_data_ptr<float>(),
                             rows,
                             clusters,
                             k,
                             options.degree};

  // The label-preserving term, a part of the features after the other. products: null once they are gone, then the
  // supports' own products are made.
  Tensor link_words = words(2 * rows + 1), choice_words = words(rows * users);
  auto* const link = words_of<int>(link_words);
  const BatchLabels batch = {link, link + rows, link + 2 * rows, link + 3 * rows, link + 4 * rows};
  const auto preserve_labels = [&](const float* all_products) {
    LAUNCH(link_labels, blocks_for(rows, kHeadWarps), kHeadThreads, 0, stream, label, batch, rows);
    LAUNCH(number_labels, 1, kHeadThreads, 0, stream, batch, rows);
    const Tensor every = torch::stable::view(supports, {rows * k, d});
    const Factor all = factor_of(every, all_products ? Parts::kNone : parts), others = all_products ? features : all;
    const Tensor met = device_empty(f, {users, others.rows.size(0)});
    (all_products ? similarity.square : similarity.direct) = met.const_data_ptr<float>();
    PreservingGradient towards(f, every, rows * rows * k <= kFewWeights ? Parts::kNone : parts, users,
                               options.needs_gradient);
    for (int64_t begin = 0; begin < rows; begin += users) {
      const int64_t count = std::min(users, rows - begin);
      Tensor part = rows_of(met, 0, count);
      multiply_transposed(part, features.part(begin, count), others);
      if (all_products) similarity.products = all_products + begin * clusters;
      auto* const support = words_of<int>(choice_words);
      const Choices choices = towards.choices(support, reinterpret_cast<float*>(support + rows * count), begin, count);
      LAUNCH(choose_supports, static_cast<unsigned>(count), kHeadThreads, 0, stream, similarity, batch,
             options.lp_temperature, choices, words_of<double>(lp_row_losses));
      if (options.needs_gradient) towards.add(lp_gradient, begin, count);
    }
    if (options.needs_gradient) {
      LAUNCH(add_through_supports, static_cast<unsigned>(rows), kHeadThreads, 0, stream,
             towards.of_supports().const_data_ptr<float>(), supports.const_data_ptr<float>(),
             norms.const_data_ptr<float>(), lp_gradient.mutable_data_ptr<float>(), d, k);
    }
  };

  if (wide) {
    const Samples all = {feature,
                         centroid,
                         label,
                         nullptr,
                         nullptr,
                         words_of<int64_t>(nearest),
                         supports.const_data_ptr<float>(),
                         norms.const_data_ptr<float>(),
                         rows,
                         clusters,
                         d,
                         k,
                         options.degree};
    wide_contrastive(all, f, c, options.parts, supports, norms, words_of<int64_t>(nearest), longest,
                     options.temperature, scale, states, words_of<double>(row_losses), contrastive_gradient);
  }
  for (int64_t begin = 0; begin < rows && !wide; begin += block) {
    const int64_t count = std::min(block, rows - begin);
    Tensor z = rows_of(products, 0, count);
    multiply_transposed(z, features.part(begin, count), centroids);
    Samples in = {feature + begin * d,
                  centroid,
                  label + begin,
                  products.const_data_ptr<float>(),
                  gram_data,
                  words_of<int64_t>(nearest) + begin * k,
                  supports.const_data_ptr<float>() + begin * k * d,
                  norms.const_data_ptr<float>() + begin * k,
                  count,
                  clusters,
                  d,
                  k,
                  options.degree};
    if (k > 0) {
      LAUNCH(nearest_of_rows, static_cast<unsigned>(count), kHeadThreads, 0, stream, in.products, in.features, centroid,
             in.labels, longest, nullptr, words_of<int64_t>(nearest) + begin * k, 0, clusters, clusters, d, k,
             centroids.error(), centroids.shortest_length());
      LAUNCH(support_rows, static_cast<unsigned>(count * k), kHeadThreads, 0, stream, in.features, centroid, in.labels,
             in.nearest, supports.mutable_data_ptr<float>() + begin * k * d,
             norms.mutable_data_ptr<float>() + begin * k, count, clusters, d, k, in.degree);
      if (preserves && block == rows) preserve_labels(in.products);
    }
    LAUNCH(row_states, blocks_for(count * (1 + k), kHeadWarps), kHeadThreads, 0, stream, in, states);

    // Products of the supports with a tile of centroids, where there is no Gram matrix to derive them from.
    const Tensor every_support = torch::stable::view(supports, {rows * k, d});
    const Factor block_supports = factor_of(rows_of(every_support, begin * k, count * k), gram ? Parts::kNone : parts);
    Tensor tile_products = device_empty(f, {gram ? 0 : count * k, width});
    const auto load_tile = [&](int64_t tile, int64_t columns) -> const float* {
      if (gram || k == 0) return nullptr;
      if (columns < width) tile_products = device_empty(f, {count * k, columns});
      multiply_transposed(tile_products, block_supports, centroids.part(tile, columns));
      return tile_products.const_data_ptr<float>();
    };
    const float* direct = nullptr;
    for (int64_t tile = 0; tile < clusters; tile += width) {
      const int64_t columns = std::min(width, clusters - tile);
      direct = load_tile(tile, columns);
      LAUNCH(softmax_sums, static_cast<unsigned>(count * (1 + k)), kHeadThreads, 0, stream, in, direct, tile, columns,
             longest, options.temperature, states);
    }
    LAUNCH(sample_losses, blocks_for(count, kHeadThreads), kHeadThreads, 0, stream, states,
           words_of<double>(row_losses) + begin, count, k, scale);
    if (!options.needs_gradient) continue;
    if (width < clusters) tile_products = device_empty(f, {count * k, width});
    for (int64_t tile = 0; tile < clusters; tile += width) {
      const int64_t columns = std::min(width, clusters - tile);
      if (width < clusters) direct = load_tile(tile, columns);
      LAUNCH(fill_weights, cell_blocks(count, columns), kHeadThreads, 0, stream, in, direct, tile, columns,
             options.temperature, states, products.mutable_data_ptr<float>());
    }
    Tensor gradient = rows_of(contrastive_gradient, begin, count);
    multiply(gradient, factor_of(z, weight_parts(parts), &centroids), centroids);
    LAUNCH(project, cell_blocks(count, d), kHeadThreads, 0, stream, in, scale, states,
           contrastive_gradient.mutable_data_ptr<float>() + begin * d);
  }

  if (preserves && (wide || block < rows)) preserve_labels(nullptr);
  Tensor loss = device_empty(f, {}), contrastive = device_empty(f, {}), preserving = device_empty(f, {});
  LAUNCH(reduce_losses, 1, kHeadThreads, 0, stream, words_of<double>(row_losses),
         preserves ? words_of<double>(lp_row_losses) : nullptr, longest, loss.mutable_data_ptr<float>(),
         contrastive.mutable_data_ptr<float>(), preserving.mutable_data_ptr<float>(), rows, k, options.lp_weight);
  return {loss, contrastive, preserving, supports, contrastive_gradient, lp_gradient};
}

Losses ise_loss(const Tensor& features, const Tensor& labels, const Tensor& centroids, double degree, int64_t k,
                double temperature, double lp_temperature, double lp_weight, const std::optional<Tensor>& gram,
                bool needs_gradient, const std::optional<Tensor>& degree_tensor) {
  check_ise_loss(features, labels, centroids, degree, k, temperature, lp_temperature, lp_weight, gram, degree_tensor);
  check_mixed_dtype(features, "features", false);
  const DeviceScope device(features);
  const std::optional<Tensor> g = gram ? std::optional(device_contiguous(*gram)) : std::nullopt;
  return losses(in_float32(features), device_contiguous(labels), in_float32(centroids), g,
                {{static_cast<float>(degree), degree_tensor ? degree_tensor->const_data_ptr<double>() : nullptr},
                 temperature,
                 lp_temperature,
                 lp_weight,
                 k,
                 needs_gradient,
                 parts_for(features)});
}

Tensor ise_loss_backward(const Tensor& grad_loss, const Tensor& grad_contrastive, const Tensor& grad_label_preserving,
                         const Tensor& features, const Tensor& contrastive_gradient, const Tensor& lp_gradient,
                         double lp_weight) {
  check_ise_loss_backward(grad_loss, grad_contrastive, grad_label_preserving, features, contrastive_gradient,
                          lp_gradient);
  const DeviceScope device(features);
  return scaled_gradient(features, contrastive_gradient,
                         lp_gradient.size(0) ? lp_gradient.const_data_ptr<float>() : nullptr,
                         {grad_loss.const_data_ptr<float>(), grad_contrastive.const_data_ptr<float>(),
                          grad_label_preserving.const_data_ptr<float>(), lp_weight});
}

std::tuple<Tensor, Tensor> cluster_nce_loss(const Tensor& features, const Tensor& labels, const Tensor& centroids,
                                            double temperature, bool needs_gradient) {
  check_cluster_nce_loss(features, labels, centroids, temperature);
  check_mixed_dtype(features, "features", false);
  const DeviceScope device(features);
  const Losses all = losses(in_float32(features), device_contiguous(labels), in_float32(centroids), std::nullopt,
                            {{0, nullptr}, temperature, 1, 0, 0, needs_gradient, parts_for(features)});
  return {std::get<0>(all), std::get<4>(all)};
}

Tensor cluster_nce_loss_backward(const Tensor& grad, const Tensor& features, const Tensor& gradient) {
  check_cluster_nce_loss_backward(grad, features, gradient);
  const DeviceScope device(features);
  return scaled_gradient(features, gradient, nullptr, {grad.const_data_ptr<float>(), nullptr, nullptr, 0});
}

}  // namespace

ISE_FAST_CUDA_OPERATORS(m) {
  m.impl("ise_loss", TORCH_BOX(&ise_loss));
  m.impl("ise_loss_backward", TORCH_BOX(&ise_loss_backward));
  m.impl("cluster_nce_loss", TORCH_BOX(&cluster_nce_loss));
  m.impl("cluster_nce_loss_backward", TORCH_BOX(&cluster_nce_loss_backward));
}

}  // namespace ise_fast
