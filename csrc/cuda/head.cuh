// Kernels that several operators of the ISE head use: exact nearest centroids from approximate similarities, and
// support samples. A row is 256 threads (nearest) or a warp (supports).
//
// Nobody can look at a label on the host without waiting for the device. A label without a centroid makes its results
// NaN; no kernel reads or writes out of bounds for it.
#pragma once

#include <cmath>

#include "../math/dot.h"
#include "../math/ordered_key.h"
#include "allocate.h"
#include "launch.h"
#include "reduce.cuh"

namespace ise_fast {
namespace {

constexpr int kHeadThreads = 256;
constexpr int kHeadWarps = kHeadThreads / kWarpSize;
constexpr double kShortestNorm = 1e-12;  // as torch.nn.functional.normalize

inline unsigned blocks_for(int64_t count, int64_t per_block) {
  return static_cast<unsigned>((count + per_block - 1) / per_block);
}

// A number of a matrix, by a thread each; blocks do not reach over the end of a row. (The rows are not gridDim.y, which
// ends at 65,535.)
struct Cell {
  int64_t row, column;  // the column may be one behind the end
};

__device__ inline Cell cell_of_thread(int64_t columns) {
  const auto across = static_cast<unsigned>((columns + kHeadThreads - 1) / kHeadThreads);
  return {blockIdx.x / across, static_cast<int64_t>(blockIdx.x % across) * kHeadThreads + threadIdx.x};
}
inline unsigned cell_blocks(int64_t rows, int64_t columns) {
  return static_cast<unsigned>(rows * ((columns + kHeadThreads - 1) / kHeadThreads));
}

// The whole inner product, in every lane of a warp; bits as math/dot.h.
__device__ double warp_dot(const float* a, const float* b, int64_t d) {
  return warp_sum(dot_lane(a, b, d, threadIdx.x % kWarpSize));
}

// Length of the longest centroid, rounded up, as the bits of a float32 (ordered like integers for what is not
// negative). `longest` starts at 0. With a Gram matrix its diagonal is read, else a warp sums up each centroid.
__global__ void longest_centroid(const float* centroids, const float* gram, unsigned* longest, int64_t clusters,
                                 int64_t d) {
  const int64_t j = static_cast<int64_t>(blockIdx.x) * kHeadWarps + threadIdx.x / kWarpSize;
  if (j >= clusters) return;
  const double square = gram ? gram[j * (clusters + 1)] : warp_dot(centroids + j * d, centroids + j * d, d);
  if (threadIdx.x % kWarpSize == 0) {
    const float length = static_cast<float>(sqrt(square) * 1.0001);
    unsigned bits;
    memcpy(&bits, &length, sizeof bits);
    atomicMax(longest, bits & 0x7fffffffu);  // NaN is above everything
  }
}

__device__ inline float length_of_bits(unsigned bits) {
  float length;
  memcpy(&length, &bits, sizeof length);
  return length;
}

// The smallest key_of(j) above `last` (any if first), over j < count, for all threads of the block.
template <class KeyOf>
__device__ uint64_t next_key(int64_t count, uint64_t last, bool first, uint64_t* scratch, KeyOf key_of) {
  uint64_t mine = kWorstKey;
  for (int64_t j = threadIdx.x; j < count; j += kHeadThreads) {
    const uint64_t key = key_of(j);
    if ((first || key > last) && key < mine) mine = key;
  }
  return block_reduce(mine, Min{}, kWorstKey, scratch);
}

// The k nearest centroids of one row a block, from its approximate products z: what may belong to the answer is
// computed exactly (see csrc/cpu/nearest.h for the certificate). keys: scratch like z. similarity may be null. With NaN
// or infinity in the feature or in a centroid nothing is certain, and everything would be computed: the answer is then
// 0 with similarity NaN.
__global__ void nearest_of_rows(const float* z, const float* features, const float* centroids, const int64_t* labels,
                                const unsigned* longest, uint64_t* keys, float* similarity, int64_t* nearest,
                                int64_t clusters, int64_t d, int64_t k, double unit_error) {
  __shared__ uint64_t scratch[kHeadWarps];
  const int64_t i = blockIdx.x, own = labels[i];
  const bool valid = own >= 0 && own < clusters;
  const float* feature = features + i * d;
  const float* row = z + i * clusters;
  uint64_t* key = keys + i * clusters;

  uint64_t last = 0;
  for (int64_t r = 0; r < k; ++r) {
    last = next_key(clusters, last, r == 0, scratch,
                    [&](int64_t j) { return j == own ? kWorstKey : descending_key(row[j], static_cast<uint32_t>(j)); });
  }
  const double error = unit_error * sqrt(warp_dot(feature, feature, d)) * length_of_bits(*longest);
  const double threshold = descending_value(last) - 2 * error;
  const bool finite = fabs(threshold) < INFINITY;  // for all threads the same
  const auto candidate = [&](int64_t j) { return finite && j != own && !(row[j] < threshold); };

  for (int64_t chunk = threadIdx.x / kWarpSize * kWarpSize; finite && chunk < clusters; chunk += kHeadThreads) {
    const int64_t j = chunk + threadIdx.x % kWarpSize;
    unsigned wanted = __ballot_sync(kWholeWarp, j < clusters && candidate(j));
    while (wanted) {
      const int64_t c = chunk + __ffs(static_cast<int>(wanted)) - 1;
      const float exact = static_cast<float>(warp_dot(feature, centroids + c * d, d));
      if (threadIdx.x % kWarpSize == 0) key[c] = descending_key(exact, static_cast<uint32_t>(c));
      wanted &= wanted - 1;
    }
  }
  __syncthreads();
  for (int64_t r = 0; r < k; ++r) {
    last = next_key(clusters, last, r == 0, scratch, [&](int64_t j) { return candidate(j) ? key[j] : kWorstKey; });
    if (threadIdx.x == 0) {
      const int64_t found = key_index(last);
      nearest[i * k + r] = found < clusters ? found : 0;
      if (similarity) similarity[i * k + r] = valid && finite ? descending_value(last) : NAN;
    }
  }
}

// s_j = u_j / ||u_j||, u_j = f + degree (m_j - o); a warp a support.
__global__ void support_rows(const float* features, const float* centroids, const int64_t* labels,
                             const int64_t* nearest, float* supports, float* norms, int64_t rows, int64_t clusters,
                             int64_t d, int64_t k, float degree) {
  const int64_t s = static_cast<int64_t>(blockIdx.x) * kHeadWarps + threadIdx.x / kWarpSize;
  if (s >= rows * k) return;
  const int lane = threadIdx.x % kWarpSize;
  const int64_t own = labels[s / k], other = nearest[s];
  const bool valid = own >= 0 && own < clusters && other >= 0 && other < clusters;
  const float *f = features + s / k * d, *m = centroids + (valid ? other : 0) * d,
              *o = centroids + (valid ? own : 0) * d;
  const auto u = [&](int64_t c) { return f[c] + degree * (m[c] - o[c]); };
  double square = 0;
  for (int64_t c = lane; c < d; c += kWarpSize) square += static_cast<double>(u(c)) * static_cast<double>(u(c));
  const double length = sqrt(warp_sum(square));
  const float norm = valid ? static_cast<float>(length > kShortestNorm ? length : kShortestNorm) : NAN;
  for (int64_t c = lane; c < d; c += kWarpSize) supports[s * d + c] = u(c) / norm;
  if (lane == 0) norms[s] = norm;
}

}  // namespace
}  // namespace ise_fast
