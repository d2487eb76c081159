// The k centroids most similar to each feature, own centroid excluded (ISE, section 3.2).
#include <tuple>

#include "../check_head.h"
#include "../math/dot.h"
#include "../math/ordered_key.h"
#include "launch.h"

namespace ise_fast {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

// keys[i, j] orders centroid j by its similarity to feature i; a warp per pair.
__global__ void similarity_keys(const float* feature, const float* centroid, const int64_t* label, uint64_t* keys,
                                int64_t clusters, int64_t d) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t i = blockIdx.y, j = static_cast<int64_t>(blockIdx.x) * kWarps + warp;
  if (j >= clusters) return;
  double sum = dot_lane(feature + i * d, centroid + j * d, d, lane);
  for (int apart = 16; apart > 0; apart /= 2) sum += __shfl_down_sync(0xffffffffu, sum, apart);
  if (lane == 0) {
    keys[i * clusters + j] = j == label[i] ? kWorstKey : descending_key(static_cast<float>(sum), j);
  }
}

// The k smallest keys of each row, one block a row, by k rounds of "smallest key above the last".
__global__ void select_smallest(const uint64_t* keys, float* similarity, int64_t* index, int64_t clusters, int64_t k) {
  __shared__ unsigned long long best;
  const uint64_t* row = keys + blockIdx.x * clusters;
  uint64_t last = 0;
  for (int64_t r = 0; r < k; ++r) {
    if (threadIdx.x == 0) best = kWorstKey;
    __syncthreads();
    unsigned long long mine = kWorstKey;
    for (int64_t j = threadIdx.x; j < clusters; j += kThreads) {
      if ((r == 0 || row[j] > last) && row[j] < mine) mine = row[j];
    }
    atomicMin(&best, mine);
    __syncthreads();
    last = best;
    if (threadIdx.x == 0) {
      similarity[blockIdx.x * k + r] = descending_value(last);
      index[blockIdx.x * k + r] = key_index(last);
    }
    __syncthreads();  // nobody may reset `best` before everybody has read it
  }
}

std::tuple<Tensor, Tensor> nearest_centroids(const Tensor& features, const Tensor& centroids, const Tensor& labels,
                                             int64_t k) {
  check_nearest_centroids(features, centroids, labels, k);
  const DeviceScope device(features);
  const Tensor f = torch::stable::contiguous(features), c = torch::stable::contiguous(centroids),
               y = torch::stable::contiguous(labels);
  const int64_t rows = f.size(0), d = f.size(1), clusters = c.size(0);
  Tensor similarity = torch::stable::new_empty(f, {rows, k});
  Tensor indices = torch::stable::new_empty(y, {rows, k});
  if (rows == 0) return {similarity, indices};

  const Tensor keys = torch::stable::new_empty(y, {rows, clusters});
  auto* key = reinterpret_cast<uint64_t*>(keys.mutable_data_ptr<int64_t>());
  const cudaStream_t stream = current_stream(f);
  const dim3 grid(static_cast<unsigned>((clusters + kWarps - 1) / kWarps), static_cast<unsigned>(rows));
  LAUNCH(similarity_keys, grid, kThreads, 0, stream, f.const_data_ptr<float>(), c.const_data_ptr<float>(),
         y.const_data_ptr<int64_t>(), key, clusters, d);
  LAUNCH(select_smallest, static_cast<unsigned>(rows), kThreads, 0, stream, key, similarity.mutable_data_ptr<float>(),
         indices.mutable_data_ptr<int64_t>(), clusters, k);
  return {similarity, indices};
}

}  // namespace

ISE_FAST_CUDA_OPERATORS(m) {
  m.impl("nearest_centroids", TORCH_BOX(&nearest_centroids));
}

}  // namespace ise_fast
