// The cluster memory's update (Dai et al. 2021; hard mode as in ISE) and its Gram matrix, without a list of clusters:
// the first row of a label works for all of them.
#include <algorithm>
#include <optional>
#include <string>

#include "../check_head.h"
#include "gemm.h"
#include "select.cuh"

namespace ise_fast {
namespace {

constexpr int kUpdateThreads = 512;
constexpr int kUpdateWarps = kUpdateThreads / kWarpSize;

// Whether no row before i has its label, and the label has a centroid. For all threads of the block.
__device__ bool leads(const int64_t* labels, int64_t i, int64_t clusters) {
  bool earlier = false;
  for (int64_t r = threadIdx.x; r < i; r += kUpdateThreads) earlier |= labels[r] == labels[i];
  return !__syncthreads_or(earlier) && labels[i] >= 0 && labels[i] < clusters;
}

// The rows of one label, then their supports: numbers p below all().
struct Members {
  const float *rows, *supports;
  const int64_t* labels;
  int64_t label, count, k, d;

  __device__ int64_t all() const { return count * (1 + k); }
  __device__ const float* row(int64_t p) const { return p < count ? rows + p * d : supports + (p - count) * d; }

  // The label of p. (Numbers have 32 bits, as keys do.)
  __device__ int64_t label_of(int64_t p) const {
    return labels[p < count ? p : static_cast<uint32_t>(p - count) / static_cast<uint32_t>(k)];
  }
  // The first member from p on, or all(); by a warp.
  __device__ int64_t next(int64_t p) const {
    for (; p < all(); p += kWarpSize) {
      const int64_t mine = p + threadIdx.x % kWarpSize;
      const unsigned found = __ballot_sync(kWholeWarp, mine < all() && label_of(mine) == label);
      if (found) return p + __ffs(static_cast<int>(found)) - 1;
    }
    return all();
  }
};

// As long as two rows of floats fit into shared memory, beside what is static: the list below takes 8 KB.
constexpr int64_t kMostStaged = 5000;

// c <- momentum c + (1 - momentum) row, made unit again: for member p, and if `onwards` for all that follow. By the
// whole block. The norm is a sum in the order of one warp, as on the CPU; meanwhile the others bring the next row.
// staged: shared memory for the centroid and that row, or null: both stay where they are.
__device__ void move(float* centroid, const Members& members, int64_t p, bool onwards, float keep, float take,
                     float* staged) {
  __shared__ float norm;
  __shared__ int64_t following;
  const int64_t d = members.d;
  float* const moved = staged ? staged : centroid;
  const auto put = [&](int64_t c, float number) { moved[c] = number; };
  if (staged) {
    for_all<4>(d, [&](int64_t c) { return centroid[c]; }, put);
  }
  for (const float* row = members.row(p); p < members.all(); row = staged ? staged + d : members.row(p)) {
    for_all<4>(d, [&](int64_t c) { return keep * moved[c] + take * row[c]; }, put);
    __syncthreads();
    if (threadIdx.x < kWarpSize) {
      const double length = sqrt(warp_dot(moved, moved, d));
      if (threadIdx.x == 0) norm = static_cast<float>(length > kShortestNorm ? length : kShortestNorm);
    } else {
      const int64_t next = onwards ? members.next(p + 1) : members.all();
      if (threadIdx.x == kWarpSize) following = next;
      if (staged && next < members.all()) {
        const float* const from = members.row(next);
        share_among(
            threadIdx.x - kWarpSize, kUpdateThreads - kWarpSize, d, [&](int64_t c) { return from[c]; },
            [&](int64_t c, float number) { staged[d + c] = number; });
      }
    }
    __syncthreads();
    for (int64_t c = threadIdx.x; c < d; c += kUpdateThreads) moved[c] /= norm;
    p = following;
  }
  if (staged) {
    for (int64_t c = threadIdx.x; c < d; c += kUpdateThreads) centroid[c] = staged[c];
  }
}

// Block i: all rows and supports of the label of row i, if row i is the first of them.
__global__ void update_clusters(float* centroids, const float* rows, const float* supports, const int64_t* labels,
                                int64_t count, int64_t k, int64_t clusters, int64_t d, float keep, float take,
                                bool hard) {
  __shared__ uint64_t scratch[kUpdateWarps];
  __shared__ List found;
  DYNAMIC_SHARED(float, shared);
  float* const staged = d <= kMostStaged ? shared : nullptr;
  const int64_t i = blockIdx.x;
  if (!leads(labels, i, clusters)) return;
  const Members members{rows, supports, labels, labels[i], count, k, d};
  float* const centroid = centroids + labels[i] * d;
  if (!hard) return move(centroid, members, i, true, keep, take, staged);
  uint64_t best = kWorstKey;  // the least similar row, the first on ties: a warp a row
  for (int64_t begin = 0; begin < members.all(); begin += kMostListed) {
    const int count_here = list_wanted(
        found, static_cast<int>(members.all() - begin < kMostListed ? members.all() - begin : kMostListed),
        [&](int64_t p) { return members.label_of(begin + p); },
        [&](int64_t its_label, int64_t) { return its_label == members.label; });
    for (int place = static_cast<int>(threadIdx.x / kWarpSize); place < count_here; place += kUpdateWarps) {
      const int64_t member = begin + found.number[place];
      // Adding +0 turns -0 into +0: they tie.
      const float similarity = static_cast<float>(warp_dot(members.row(member), centroid, d)) + 0.0f;
      best = Min{}(best, ascending_key(similarity, static_cast<uint32_t>(member)));
    }
    __syncthreads();  // nobody may empty the list before everybody has read it
  }
  best = block_reduce(best, Min{}, kWorstKey, scratch);
  move(centroid, members, key_index(best), false, keep, take, staged);
}

// The changed clusters, each once, in the order of their first rows.
struct Changed {
  int* clusters;  // [rows of the batch]
  int* count;
};

// One block. first [clusters]: the first row of each, all bits set where there is none so far.
__global__ void list_changed(const int64_t* labels, unsigned* first, Changed changed, int64_t count, int64_t clusters) {
  __shared__ unsigned counts[kHeadWarps];
  const auto valid = [&](int64_t r) { return labels[r] >= 0 && labels[r] < clusters; };
  for (int64_t r = threadIdx.x; r < count; r += kHeadThreads) {
    if (valid(r)) atomicMin(first + labels[r], static_cast<unsigned>(r));
  }
  __syncthreads();
  const int64_t found = compact(
      count, counts, [&](int64_t r) { return valid(r) && load_relaxed(first + labels[r]) == r; },
      [&](int64_t r, int64_t place) { changed.clusters[place] = static_cast<int>(labels[r]); });
  if (threadIdx.x == 0) *changed.count = static_cast<int>(found);
}

constexpr int kTogether = 16;  // changed clusters that a block multiplies at once
constexpr int kAcross = 3;     // other clusters of a warp: 3,000 give almost each of 132 multiprocessors a block
constexpr int kStaged = 256;   // numbers of each changed cluster in shared memory
constexpr int kOfLane = kStaged / kWarpSize, kBeside = kHeadThreads / kTogether;  // threads of a changed cluster

// Adds up each of 16 numbers over the lanes of a warp, in the order of warp_sum; lane l receives sum l / 2. In each
// step a lane gives away half of the numbers that it has left, and takes the other half of its partner's.
template <int kLeft = kTogether>
__device__ float warp_sums(float (&number)[kTogether]) {
  if constexpr (kLeft == 1) {
    return number[0] + __shfl_xor_sync(kWholeWarp, number[0], 1);
  } else {
    constexpr int kHalf = kLeft / 2;
    const bool upper = threadIdx.x % kWarpSize & kLeft;
#pragma unroll
    for (int r = 0; r < kHalf; ++r) {
      const float given = upper ? number[r] : number[r + kHalf], kept = upper ? number[r + kHalf] : number[r];
      number[r] = kept + __shfl_xor_sync(kWholeWarp, given, kLeft);
    }
    return warp_sums<kHalf>(number);
  }
}

// Rows and columns of the changed clusters. A block takes 16 of them to shared memory, piece by piece, and each warp
// multiplies its three clusters with all 16: what it reads of its own it uses 16 times. All that a piece needs is asked
// for at once. (How many clusters changed is only known here: blocks without any end at once.) Two changed clusters
// meet twice and compute the same bits.
__global__ void refresh_rows(float* gram, const float* centroids, Changed changed, int64_t tiles, int64_t clusters,
                             int64_t d) {
  __shared__ float staged[kTogether][kStaged + kBeside];  // the rows that a warp writes at once begin at other banks
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize, count = *changed.count;
  const int row = static_cast<int>(threadIdx.x) / kBeside, beside = static_cast<int>(threadIdx.x) % kBeside;
  const int64_t across = (blockIdx.x % tiles * kHeadWarps + warp) * kAcross;
  const float* other[kAcross];
  for (int q = 0; q < kAcross; ++q) {
    other[q] = centroids + (across + q < clusters ? across + q : clusters - 1) * d + lane;
  }
  const int strips = static_cast<int>(gridDim.x / tiles);
  for (int begin = static_cast<int>(blockIdx.x / tiles) * kTogether; begin < count; begin += strips * kTogether) {
    const int mine = count - begin < kTogether ? count - begin : kTogether;
    const float* const mover = centroids + changed.clusters[begin + (row < mine ? row : mine - 1)] * d + beside;
    float sum[kAcross][kTogether] = {};
    for (int64_t start = 0; start < d; start += kStaged) {
      const int wide = static_cast<int>(d - start < kStaged ? d - start : kStaged), given = row < mine ? wide : 0;
      float coming[kStaged / kBeside], number[kAcross][kOfLane];
#pragma unroll
      for (int s = 0; s < kStaged / kBeside; ++s) {
        coming[s] = s * kBeside + beside < given ? mover[start + s * kBeside] : 0.0f;
      }
#pragma unroll
      for (int s = 0; s < kOfLane; ++s) {
#pragma unroll
        for (int q = 0; q < kAcross; ++q) {
          number[q][s] = s * kWarpSize + lane < wide ? other[q][start + s * kWarpSize] : 0.0f;
        }
      }
      __syncthreads();  // nobody may overwrite the piece before every warp has used it
#pragma unroll
      for (int s = 0; s < kStaged / kBeside; ++s) staged[row][s * kBeside + beside] = coming[s];
      __syncthreads();
#pragma unroll
      for (int s = 0; s < kOfLane; ++s) {
        if (s * kWarpSize >= wide) break;
#pragma unroll
        for (int r = 0; r < kTogether; ++r) {
          const float factor = staged[r][s * kWarpSize + lane];
#pragma unroll
          for (int q = 0; q < kAcross; ++q) sum[q][r] = fmaf(number[q][s], factor, sum[q][r]);
        }
      }
    }
    const int64_t i = changed.clusters[begin + (lane / 2 < mine ? lane / 2 : mine - 1)];
#pragma unroll
    for (int q = 0; q < kAcross; ++q) {
      const float product = warp_sums(sum[q]);
      const int64_t j = across + q;
      if (lane / 2 < mine && j < clusters)
        store_relaxed(gram + (lane % 2 ? j * clusters + i : i * clusters + j), product);
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
  const Tensor x = contiguous_apart(rows, target), y = device_contiguous(labels);
  const Tensor more = supports ? contiguous_apart(*supports, target) : x;
  const int64_t d = rows.size(1), staged = d <= kMostStaged ? 2 * d * sizeof(float) : 0;
  LAUNCH(update_clusters, static_cast<unsigned>(count), kUpdateThreads, staged, current_stream(x),
         target.mutable_data_ptr<float>(), x.const_data_ptr<float>(), more.const_data_ptr<float>(),
         y.const_data_ptr<int64_t>(), count, k, clusters, d, static_cast<float>(momentum),
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
  const cudaStream_t stream = current_stream(c);
  const int64_t rows = y.numel(), tiles = blocks_for(clusters, kHeadWarps * kAcross);
  // Few labels changed, but which is not known here: as many blocks as there is room for take one group after the
  // other.
  const int64_t groups = blocks_for(rows, kTogether), room = blocks_for(multiprocessors(), tiles);
  Tensor first = device_empty(c, {clusters}, ScalarType::Int), list = device_empty(c, {rows + 1}, ScalarType::Int);
  auto* const words = list.mutable_data_ptr<int32_t>();
  auto* const first_row = reinterpret_cast<unsigned*>(first.mutable_data_ptr<int32_t>());
  const Changed changed{words, words + rows};
  fill_bytes(first_row, 0xff, clusters * sizeof *first_row, stream);
  LAUNCH(list_changed, 1, kHeadThreads, 0, stream, y.const_data_ptr<int64_t>(), first_row, changed, rows, clusters);
  LAUNCH(refresh_rows, static_cast<unsigned>(std::min(groups, room) * tiles), kHeadThreads, 0, stream,
         gram.mutable_data_ptr<float>(), c.const_data_ptr<float>(), changed, tiles, clusters, c.size(1));
}

}  // namespace

ISE_FAST_CUDA_OPERATORS(m) {
  m.impl("update_memory_", TORCH_BOX(&update_memory_));
  m.impl("refresh_gram_", TORCH_BOX(&refresh_gram_));
}

}  // namespace ise_fast
