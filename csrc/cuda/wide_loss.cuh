// The contrastive term against more centroids than can be split at once: a tile of centroids after the other, with all
// rows of the batch. Mathematics in csrc/cpu/softmax.h.
//
// A tile is split when it comes (split.cuh), and comes twice: for the features, which then know their nearest centroids
// and so their supports, and for the supports. Exponentials are relative to the largest so far, and so is the sum of
// centroids that they weigh, the gradient but for a factor: when a larger one comes, both shrink. So no product is made
// twice, and scratch does not grow with the number of centroids.
#pragma once

#include <algorithm>

#include "contrastive.cuh"
#include "split.cuh"

namespace ise_fast {
namespace {

// Rows that meet all centroids together: the features, or the supports of all of them.
struct PassRows {
  const float* rows;     // [count, d]
  const float* norms;    // [count], of supports, or null
  const int64_t* label;  // of the samples
  RowState* states;      // of all rows of the samples
  int64_t count, clusters, d, k;

  __device__ int64_t sample(int64_t row) const { return norms ? row / k : row; }
  __device__ RowState& state(int64_t row) const {
    return states[norms ? row / k * (1 + k) + 1 + row % k : row * (1 + k)];
  }
};

// Where each row starts: its cosine with the own centroid. A warp a row.
__global__ void own_cosines(PassRows in, const float* centroids) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kHeadWarps + threadIdx.x / kWarpSize;
  if (row >= in.count) return;
  const int64_t own = in.label[in.sample(row)];
  const bool valid = own >= 0 && own < in.clusters;
  const float* const f = in.rows + row * in.d;
  const double length = in.norms ? in.norms[row] : sqrt(warp_dot(f, f, in.d));
  RowState state = {};
  state.shrink = 1;
  state.inverse_norm = static_cast<float>(1 / (length > kShortestNorm ? length : kShortestNorm));
  const auto product = static_cast<float>(warp_dot(f, centroids + (valid ? own : 0) * in.d, in.d));
  state.own = !valid ? NAN : in.norms ? product : product * state.inverse_norm;  // supports are of unit length
  if (threadIdx.x % kWarpSize == 0) in.state(row) = state;
}

// A tile of products becomes the exponentials, 0 for the own centroid, and these are added to S and T; a block a row.
__global__ void take_tile(PassRows in, float* tile, int64_t from, int64_t columns, double tau) {
  __shared__ double scratch[kHeadWarps];
  const int64_t row = blockIdx.x, own = in.label[in.sample(row)] - from;
  RowState state = in.state(row);
  float* const z = tile + row * columns;
  const float factor = in.norms ? 1.0f : state.inverse_norm, start = state.own;
  add_columns(
      state, columns, own, false, tau, scratch, [&](int64_t c) { return z[c] * factor - start; },
      [&](int64_t c, float e) { z[c] = e; });
  if (own >= 0 && own < columns && own % kHeadThreads == threadIdx.x) z[own] = 0;
  if (threadIdx.x == 0) in.state(row) = state;
}

// sum = sum x shrink + part; a thread a number.
__global__ void add_weighed(PassRows in, const float* part, float* sum, bool first) {
  const auto [row, c] = cell_of_thread(in.d);
  if (c >= in.d) return;
  const float before = first ? 0.0f : sum[row * in.d + c] * in.state(row).shrink;
  sum[row * in.d + c] = before + part[row * in.d + c];
}

// scale x sum over a sample's rows of (P - Y) C / n, from the weighed sums of centroids; a thread a number.
__global__ void join_rows(Samples in, const float* feature_sums, const float* support_sums, double scale,
                          const RowState* states, float* gradient) {
  const auto [i, c] = cell_of_thread(in.d);
  if (c >= in.d) return;
  const int64_t label = in.labels[i];
  const float own = in.centroids[(label >= 0 && label < in.clusters ? label : 0) * in.d + c];
  float sum = 0;
  for (int64_t r = 0; r < 1 + in.k; ++r) {
    const RowState state = states[i * (1 + in.k) + r];
    const double row_scale = scale * state.inverse_norm / denominator(state);
    const float others = r == 0 ? feature_sums[i * in.d + c] : support_sums[(i * in.k + r - 1) * in.d + c];
    sum += static_cast<float>(row_scale) * others - static_cast<float>(row_scale * state.s) * own;
  }
  gradient[i * in.d + c] = sum;
}

// Columns of a tile, so that neither its products nor its parts take more than some hundred MB.
inline int64_t wide_tile(int64_t rows, int64_t clusters, int64_t d) {
  const int64_t products = at_once(int64_t{1} << 25) / std::max<int64_t>(rows, 1);
  return std::min({clusters, whole_sectors(std::max<int64_t>(products, 1)), rows_split_at_once(d)});
}

// All tiles, for the rows of a pass: states, and the weighed sums of centroids unless `sums` is empty.
// each(products, tile, columns, centroids) sees the products first.
template <class Each>
void run_pass(const PassRows& in, const Tensor& rows, const Tensor& c, Parts parts, Tensor& sums, double tau,
              const Each& each) {
  const cudaStream_t stream = current_stream(c);
  LAUNCH(own_cosines, blocks_for(in.count, kHeadWarps), kHeadThreads, 0, stream, in, c.const_data_ptr<float>());
  const int64_t width = wide_tile(in.count, in.clusters, in.d);
  const Factor left = factor_of(rows, parts);
  Tensor tile = device_empty(c, {in.count, width}), part = device_empty(c, {sums.size(0), in.d}), every = c;
  for (int64_t from = 0; from < in.clusters; from += width) {
    const int64_t columns = std::min(width, in.clusters - from);
    if (columns < width) tile = device_empty(c, {in.count, columns});
    const Factor right = factor_of(torch::stable::narrow(every, 0, from, columns), parts);
    multiply_transposed(tile, left, right);
    each(tile.const_data_ptr<float>(), from, columns, right);
    LAUNCH(take_tile, static_cast<unsigned>(in.count), kHeadThreads, 0, stream, in, tile.mutable_data_ptr<float>(),
           from, columns, tau);
    if (sums.size(0) == 0) continue;
    multiply(part, factor_of(tile, weight_parts(parts), &right), right);
    LAUNCH(add_weighed, cell_blocks(in.count, in.d), kHeadThreads, 0, stream, in, part.const_data_ptr<float>(),
           sums.mutable_data_ptr<float>(), from == 0);
  }
}

// The term of all samples: nearest centroids and supports (in.k > 0), losses, and the gradient unless it is empty.
inline void wide_contrastive(const Samples& in, const Tensor& f, const Tensor& c, Parts parts, Tensor& supports,
                             Tensor& norms, int64_t* nearest, const unsigned* longest, double tau, double scale,
                             RowState* states, double* losses, Tensor& gradient) {
  const cudaStream_t stream = current_stream(f);
  const int64_t rows = in.count, d = in.d, k = in.k, summed = gradient.size(0) > 0 ? rows : 0;
  Tensor feature_sums = device_empty(f, {summed, d}), support_sums = device_empty(f, {summed * k, d});
  Tensor similarity = device_empty(f, {rows, k});
  const auto search = [&](const float* z, int64_t from, int64_t columns, const Factor& right) {
    if (k == 0) return;
    LAUNCH(nearest_of_rows, static_cast<unsigned>(rows), kHeadThreads, 0, stream, z, in.features, in.centroids,
           in.labels, longest, similarity.mutable_data_ptr<float>(), nearest, from, columns, in.clusters, d, k,
           right.error(), right.shortest_length());
  };
  run_pass({in.features, nullptr, in.labels, states, rows, in.clusters, d, k}, f, c, parts, feature_sums, tau, search);
  if (k > 0) {
    LAUNCH(support_rows, static_cast<unsigned>(rows * k), kHeadThreads, 0, stream, in.features, in.centroids, in.labels,
           nearest, supports.mutable_data_ptr<float>(), norms.mutable_data_ptr<float>(), rows, in.clusters, d, k,
           in.degree);
    const PassRows pass = {in.supports, in.norms, in.labels, states, rows * k, in.clusters, d, k};
    run_pass(pass, torch::stable::view(supports, {rows * k, d}), c, parts, support_sums, tau,
             [](const float*, int64_t, int64_t, const Factor&) {});
  }
  LAUNCH(sample_losses, blocks_for(rows, kHeadThreads), kHeadThreads, 0, stream, states, losses, rows, k, scale);
  if (summed == 0) return;
  float* const out = gradient.mutable_data_ptr<float>();
  LAUNCH(join_rows, cell_blocks(rows, d), kHeadThreads, 0, stream, in, feature_sums.const_data_ptr<float>(),
         support_sums.const_data_ptr<float>(), scale, states, out);
  LAUNCH(project, cell_blocks(rows, d), kHeadThreads, 0, stream, in, scale, states, out);
}

}  // namespace
}  // namespace ise_fast
