// The multi-label loss, as in csrc/cpu/multi_label.cpp. It waits for nothing.
#include <tuple>

#include "../check_methods.h"
#include "hardest.cuh"
#include "online_softmax.cuh"

namespace ise_fast {
namespace {

// What the kernels of the loss see; `hard`: [B, most] columns of the hardest negatives, ascending.
struct MultiLabel {
  const float *features, *table;
  const int64_t* indptr;
  const int32_t* positives;
  int32_t* hard;
  int64_t *hard_count, *valid;
  int64_t rows, n, d, listed, most;
  double delta, share;
};

// By one block: whether the positives of row i are columns in ascending order, and how many hard negatives they leave.
__device__ bool good_positives(const MultiLabel& in, int64_t i, int* scratch) {
  const int64_t begin = in.indptr[i], end = in.indptr[i + 1];
  const bool range = 0 <= begin && begin < end && end <= in.listed && (i > 0 || begin == 0);
  int bad = !range;
  for (int64_t p = begin + threadIdx.x; range && p < end; p += kHeadThreads) {
    const int32_t c = in.positives[p];
    bad |= c < 0 || c >= in.n || (p > begin && in.positives[p - 1] >= c);
  }
  return block_reduce(bad, Max{}, 0, scratch) == 0;
}

__global__ void find_hard(MultiLabel in, float* products, const unsigned* longest, uint64_t* keys, int64_t first_row,
                          double unit_error) {
  __shared__ unsigned shared[kBins];
  __shared__ int flags[kHeadWarps];
  __shared__ double scratch[kHeadWarps];
  const int64_t i = first_row + blockIdx.x;
  float* const z = products + static_cast<int64_t>(blockIdx.x) * in.n;
  const float* const feature = in.features + i * in.d;
  const bool good = good_positives(in, i, flags);
  double bad = good ? 0 : 1;
  for (int64_t j = threadIdx.x; j < in.n; j += kHeadThreads) {
    if (!is_finite(z[j])) bad = 1;
  }
  bad = block_reduce(bad, Max{}, 0.0, scratch);
  if (bad != 0) {  // the same for all threads
    if (threadIdx.x == 0) in.valid[i] = in.hard_count[i] = 0;
    return;
  }
  const int64_t begin = in.indptr[i], end = in.indptr[i + 1];
  for (int64_t p = begin + threadIdx.x; p < end; p += kHeadThreads) z[in.positives[p]] = -INFINITY;
  __syncthreads();
  const auto wanted = static_cast<int64_t>(in.share * static_cast<double>(in.n - (end - begin)));
  const double error = unit_error * sqrt(warp_dot(feature, feature, in.d)) * length_of_bits(*longest) + kUnderflow;
  if (wanted > 0) {
    hardest_of_row(
        z, feature, in.table, keys + static_cast<int64_t>(blockIdx.x) * in.n, in.n, in.d, wanted, error, shared,
        [&](int64_t j) { return z[j] != -INFINITY; },
        [&](int64_t j, int64_t p, float) { in.hard[i * in.most + p] = static_cast<int32_t>(j); });
  }
  if (threadIdx.x == 0) {
    in.hard_count[i] = wanted;
    in.valid[i] = wanted > 0;
  }
}

// Loss of each sample and the weights of its gradient: positives first, then the hardest; a block a sample.
__global__ void multi_label_terms(MultiLabel in, double* losses, float* weights) {
  __shared__ double scratch[kHeadWarps];
  const int64_t i = blockIdx.x;
  if (!in.valid[i]) {
    if (threadIdx.x == 0) losses[i] = NAN;
    return;
  }
  const int64_t begin = in.indptr[i], own = in.indptr[i + 1] - begin, hard = in.hard_count[i];
  const double positive = in.delta / static_cast<double>(own), negative = 1 / static_cast<double>(hard);
  const double scale = 2 / static_cast<double>(in.rows);
  double loss = 0;
  for (int64_t t = threadIdx.x / kWarpSize; t < own + hard; t += kHeadWarps) {
    const int64_t c = t < own ? in.positives[begin + t] : in.hard[i * in.most + t - own];
    const double z = warp_dot(in.features + i * in.d, in.table + c * in.d, in.d);
    if (threadIdx.x % kWarpSize != 0) continue;
    loss += t < own ? positive * (1 - z) * (1 - z) : negative * (1 + z) * (1 + z);
    const double weight = t < own ? -scale * positive * (1 - z) : scale * negative * (1 + z);
    // Positives of all rows lie together; the hardest of row i follow those of all rows.
    weights[t < own ? begin + t : in.listed + i * in.most + t - own] = static_cast<float>(weight);
  }
  loss = block_sum(loss, scratch);
  if (threadIdx.x == 0) losses[i] = loss;
}

__global__ void multi_label_gradient(MultiLabel in, const float* weights, float* gradient) {
  const auto [i, c] = cell_of_thread(in.d);
  if (c >= in.d) return;
  float sum = in.valid[i] ? 0.0f : NAN;
  for (int64_t p = in.indptr[i]; in.valid[i] && p < in.indptr[i + 1]; ++p) {
    sum += weights[p] * in.table[in.positives[p] * in.d + c];
  }
  for (int64_t h = 0; h < in.hard_count[i]; ++h) {
    sum += weights[in.listed + i * in.most + h] * in.table[in.hard[i * in.most + h] * in.d + c];
  }
  gradient[i * in.d + c] = sum;
}

std::tuple<Tensor, Tensor> multi_label_loss(const Tensor& features, const Tensor& table, const Tensor& indptr,
                                            const Tensor& indices, double delta, double hard_share,
                                            bool needs_gradient) {
  check_multi_label_loss(features, table, indptr, indices, delta, hard_share);
  check_matrix(features, "features");
  const DeviceScope device(features);
  const Tensor f = device_contiguous(features), v = device_contiguous(table);
  const Tensor p = device_contiguous(indptr), x = device_contiguous(indices);
  const int64_t rows = f.size(0), d = f.size(1), n = v.size(0);
  const int64_t most = std::max<int64_t>(static_cast<int64_t>(hard_share * static_cast<double>(n)), 1);
  const cudaStream_t stream = current_stream(f);
  const Words<int32_t> hard(rows * most, p);
  const Words<int64_t> hard_count(rows, p), valid(rows, p);
  const Words<double> losses(rows, p);
  const Words<float> weights(x.numel() + rows * most, p);
  const MultiLabel in = {f.const_data_ptr<float>(),
                         v.const_data_ptr<float>(),
                         p.const_data_ptr<int64_t>(),
                         x.const_data_ptr<int32_t>(),
                         hard.data(),
                         hard_count.data(),
                         valid.data(),
                         rows,
                         n,
                         d,
                         x.numel(),
                         most,
                         delta,
                         hard_share};
  if (n > 0) {
    multiply_by_blocks(f, v, stream, [&](const ProductBlock& block) {
      LAUNCH(find_hard, static_cast<unsigned>(block.count), kHeadThreads, 0, stream, in, block.products, block.longest,
             block.keys, block.begin, block.error);
    });
  } else {
    fill_bytes(valid.data(), 0, rows * sizeof(int64_t), stream);
    fill_bytes(hard_count.data(), 0, rows * sizeof(int64_t), stream);
  }
  LAUNCH(multi_label_terms, static_cast<unsigned>(rows), kHeadThreads, 0, stream, in, losses.data(), weights.data());
  Tensor gradient = device_empty(f, {needs_gradient ? rows : 0, d}), loss = device_empty(f, {});
  if (needs_gradient) {
    LAUNCH(multi_label_gradient, cell_blocks(rows, d), kHeadThreads, 0, stream, in, weights.data(),
           gradient.mutable_data_ptr<float>());
  }
  LAUNCH(mean_loss, 1, kHeadThreads, 0, stream, losses.data(), loss.mutable_data_ptr<float>(), rows);
  return {loss, gradient};
}

}  // namespace

ISE_FAST_CUDA_OPERATORS(m) {
  m.impl("multi_label_loss", TORCH_BOX(&multi_label_loss));
}

}  // namespace ise_fast
