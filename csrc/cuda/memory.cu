// The cluster memory's update (Dai et al. 2021; hard mode as in ISE) and its Gram matrix, without a list of clusters:
// the first row of a label works for all of them.
#include <optional>
#include <string>

#include "../check_head.h"
#include "gemm.h"
#include "head.cuh"

namespace ise_fast {
namespace {

// Whether no row before i has its label, and the label has a centroid. For all threads of the block.
__device__ bool leads(const int64_t* labels, int64_t i, int64_t clusters, int* scratch) {
  int earlier = 0;
  for (int64_t r = threadIdx.x; r < i; r += kHeadThreads) earlier |= labels[r] == labels[i];
  return block_reduce(earlier, Max{}, 0, scratch) == 0 && labels[i] >= 0 && labels[i] < clusters;
}

// c <- momentum c + (1 - momentum) row, made unit again; by the whole block. Ends with a barrier.
__device__ void move(float* centroid, const float* row, float keep, float take, int64_t d, float* norm) {
  const auto moved = [&](int64_t c) { return keep * centroid[c] + take * row[c]; };
  if (threadIdx.x < kWarpSize) {
    double square = 0;
    for (int64_t c = threadIdx.x; c < d; c += kWarpSize) {
      square += static_cast<double>(moved(c)) * static_cast<double>(moved(c));
    }
    const double length = sqrt(warp_sum(square));
    if (threadIdx.x == 0) *norm = static_cast<float>(length > kShortestNorm ? length : kShortestNorm);
  }
  __syncthreads();
  for (int64_t c = threadIdx.x; c < d; c += kHeadThreads) centroid[c] = moved(c) / *norm;
  __syncthreads();
}

// Block i: all rows and supports of the label of row i, if row i is the first of them.
__global__ void update_clusters(float* centroids, const float* rows, const float* supports, const int64_t* labels,
                                int64_t count, int64_t k, int64_t clusters, int64_t d, float keep, float take,
                                bool hard) {
  __shared__ int flags[kHeadWarps];
  __shared__ uint64_t scratch[kHeadWarps];
  __shared__ float norm;
  const int64_t i = blockIdx.x, label = labels[i];
  if (!leads(labels, i, clusters, flags)) return;
  float* const centroid = centroids + label * d;
  const int64_t all = count * (1 + k);
  const auto row = [&](int64_t p) { return p < count ? rows + p * d : supports + (p - count) * d; };
  const auto mine = [&](int64_t p) { return labels[p < count ? p : (p - count) / k] == label; };
  if (!hard) {
    for (int64_t p = 0; p < all; ++p) {
      if (mine(p)) move(centroid, row(p), keep, take, d, &norm);
    }
    return;
  }
  uint64_t best = kWorstKey;  // the least similar row, the first on ties: a warp a row
  for (int64_t p = threadIdx.x / kWarpSize; p < all; p += kHeadWarps) {
    if (!mine(p)) continue;
    // Adding +0 turns -0 into +0: they tie.
    const float similarity = static_cast<float>(warp_dot(row(p), centroid, d)) + 0.0f;
    const uint64_t key = ascending_key(similarity, static_cast<uint32_t>(p));
    best = key < best ? key : best;
  }
  best = block_reduce(best, Min{}, kWorstKey, scratch);
  move(centroid, row(key_index(best)), keep, take, d, &norm);
}

// Rows and columns of the labels; a block for a tile of columns of row i, a warp a product. Two changed clusters meet
// twice and compute the same bits.
__global__ void refresh_rows(float* gram, const float* centroids, const int64_t* labels, int64_t clusters, int64_t d) {
  __shared__ int flags[kHeadWarps];
  const auto [i, column] = cell_of_thread(clusters);
  const int64_t label = labels[i], tile = column - threadIdx.x;
  if (!leads(labels, i, clusters, flags)) return;
  for (int t = threadIdx.x / kWarpSize; t < kHeadThreads; t += kHeadWarps) {
    const int64_t j = tile + t;
    if (j >= clusters) continue;
    const float product = static_cast<float>(warp_dot(centroids + label * d, centroids + j * d, d));
    if (threadIdx.x % kWarpSize == 0) {
      store_relaxed(gram + label * clusters + j, product);
      store_relaxed(gram + j * clusters + label, product);
    }
  }
}

void update_memory_(Tensor centroids, const Tensor& rows, const Tensor& labels, const std::optional<Tensor>& supports,
                    double momentum, std::string mode) {
  check_update_memory(centroids, rows, labels, supports, momentum, mode);
  check_matrix(centroids, "centroids");
  const int64_t count = rows.size(0), k = supports ? supports->size(1) : 0, clusters = centroids.size(0);
  if (count == 0) return;
  const DeviceScope device(centroids);
  const Uninterrupted whole;  // what it writes is the caller's
  Tensor target = device_contiguous(centroids);
  const Tensor x = device_contiguous(rows), y = device_contiguous(labels);
  const Tensor more = supports ? device_contiguous(*supports) : x;
  LAUNCH(update_clusters, static_cast<unsigned>(count), kHeadThreads, 0, current_stream(x),
         target.mutable_data_ptr<float>(), x.const_data_ptr<float>(), more.const_data_ptr<float>(),
         y.const_data_ptr<int64_t>(), count, k, clusters, rows.size(1), static_cast<float>(momentum),
         static_cast<float>(1 - momentum), mode == "hard");
  if (!centroids.is_contiguous()) torch::stable::copy_(centroids, target);
}

void refresh_gram_(Tensor gram, const Tensor& centroids, const std::optional<Tensor>& labels) {
  check_refresh_gram(gram, centroids, labels);
  check_matrix(centroids, "centroids");
  const DeviceScope device(centroids);
  const Uninterrupted whole;  // what it writes is the caller's
  const Tensor c = device_contiguous(centroids);
  const int64_t clusters = c.size(0);
  if (clusters == 0) return;
  if (!labels) {
    matmul(gram, c, torch::stable::transpose(c, 0, 1));
    return;
  }
  const Tensor y = device_contiguous(*labels);
  if (y.numel() == 0) return;
  LAUNCH(refresh_rows, cell_blocks(y.numel(), clusters), kHeadThreads, 0, current_stream(c),
         gram.mutable_data_ptr<float>(), c.const_data_ptr<float>(), y.const_data_ptr<int64_t>(), clusters, c.size(1));
}

}  // namespace

ISE_FAST_CUDA_OPERATORS(m) {
  m.impl("update_memory_", TORCH_BOX(&update_memory_));
  m.impl("refresh_gram_", TORCH_BOX(&refresh_gram_));
}

}  // namespace ise_fast
