// The cluster memory's update (Dai et al. 2021; hard mode as in ISE) and its Gram matrix, without a list of clusters:
// the first row of a label works for all of them.
#include <optional>
#include <string>

#include "../check_head.h"
#include "gemm.h"
#include "select.cuh"

namespace ise_fast {
namespace {

// Whether no row before i has its label, and the label has a centroid. For all threads of the block.
__device__ bool leads(const int64_t* labels, int64_t i, int64_t clusters) {
  bool earlier = false;
  for (int64_t r = threadIdx.x; r < i; r += kHeadThreads) earlier |= labels[r] == labels[i];
  return !__syncthreads_or(earlier) && labels[i] >= 0 && labels[i] < clusters;
}

// The rows of one label, then their supports: numbers p below all().
struct Members {
  const float *rows, *supports;
  const int64_t* labels;
  int64_t label, count, k, d;

  __device__ int64_t all() const { return count * (1 + k); }
  __device__ const float* row(int64_t p) const { return p < count ? rows + p * d : supports + (p - count) * d; }

  // Which of the numbers p .. p + 31 are members, a bit each; by a warp. (Numbers have 32 bits, as keys do.)
  __device__ unsigned among(int64_t p) const {
    int64_t mine = p + threadIdx.x % kWarpSize;
    const bool real = mine < all();
    if (mine >= count) mine = k > 0 ? static_cast<uint32_t>(mine - count) / static_cast<uint32_t>(k) : 0;
    return __ballot_sync(kWholeWarp, real && labels[mine] == label);
  }
  // The first member from p on, or all(); by a warp.
  __device__ int64_t next(int64_t p) const {
    for (; p < all(); p += kWarpSize) {
      if (const unsigned found = among(p)) return p + __ffs(static_cast<int>(found)) - 1;
    }
    return all();
  }
};

// As long as two rows of floats fit into the shared memory that needs no asking.
constexpr int64_t kMostStaged = 6144;

// c <- momentum c + (1 - momentum) row, made unit again: for member p, and if `onwards` for all that follow. By the
// whole block. The norm is a sum in the order of one warp, as on the CPU; meanwhile the others bring the next row.
// staged: shared memory for the centroid and that row, or null: both stay where they are.
__device__ void move(float* centroid, const Members& members, int64_t p, bool onwards, float keep, float take,
                     float* staged) {
  __shared__ float norm;
  __shared__ int64_t following;
  const int64_t d = members.d;
  float* const moved = staged ? staged : centroid;
  if (staged) {
    for (int64_t c = threadIdx.x; c < d; c += kHeadThreads) staged[c] = centroid[c];
  }
  for (const float* row = members.row(p); p < members.all(); row = staged ? staged + d : members.row(p)) {
    for (int64_t c = threadIdx.x; c < d; c += kHeadThreads) moved[c] = keep * moved[c] + take * row[c];
    __syncthreads();
    if (threadIdx.x < kWarpSize) {
      const double length = sqrt(warp_dot(moved, moved, d));
      if (threadIdx.x == 0) norm = static_cast<float>(length > kShortestNorm ? length : kShortestNorm);
    } else {
      const int64_t next = onwards ? members.next(p + 1) : members.all();
      if (threadIdx.x == kWarpSize) following = next;
      if (staged && next < members.all()) {
        const float* const from = members.row(next);
        for (int64_t c = threadIdx.x - kWarpSize; c < d; c += kHeadThreads - kWarpSize) staged[d + c] = from[c];
      }
    }
    __syncthreads();
    for (int64_t c = threadIdx.x; c < d; c += kHeadThreads) moved[c] /= norm;
    p = following;
  }
  if (staged) {
    for (int64_t c = threadIdx.x; c < d; c += kHeadThreads) centroid[c] = staged[c];
  }
}

// Block i: all rows and supports of the label of row i, if row i is the first of them.
__global__ void update_clusters(float* centroids, const float* rows, const float* supports, const int64_t* labels,
                                int64_t count, int64_t k, int64_t clusters, int64_t d, float keep, float take,
                                bool hard) {
  __shared__ uint64_t scratch[kHeadWarps];
  DYNAMIC_SHARED(float, shared);
  float* const staged = d <= kMostStaged ? shared : nullptr;
  const int64_t i = blockIdx.x;
  if (!leads(labels, i, clusters)) return;
  const Members members{rows, supports, labels, labels[i], count, k, d};
  float* const centroid = centroids + labels[i] * d;
  if (!hard) return move(centroid, members, i, true, keep, take, staged);
  uint64_t best = kWorstKey;  // the least similar row, the first on ties: a warp a row
  unsigned seen = 0;
  for (int64_t p = 0; p < members.all(); p += kWarpSize) {
    for (unsigned left = members.among(p); left != 0; left &= left - 1) {
      if (seen++ % kHeadWarps != threadIdx.x / kWarpSize) continue;
      const int64_t member = p + __ffs(static_cast<int>(left)) - 1;
      // Adding +0 turns -0 into +0: they tie.
      const float similarity = static_cast<float>(warp_dot(members.row(member), centroid, d)) + 0.0f;
      best = Min{}(best, ascending_key(similarity, static_cast<uint32_t>(member)));
    }
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
constexpr int kAcross = 2;     // other clusters of a warp
constexpr int kStaged = 256;   // numbers of each changed cluster in shared memory

// Rows and columns of the changed clusters. A block takes 16 of them to shared memory, piece by piece, and each warp
// multiplies its two clusters with all 16: what it reads of its own it uses 16 times. (How many clusters changed is
// only known here: blocks without any end at once.) Two changed clusters meet twice and compute the same bits.
__global__ void refresh_rows(float* gram, const float* centroids, Changed changed, int64_t tiles, int64_t clusters,
                             int64_t d) {
  __shared__ float staged[kTogether][kStaged];
  const int64_t begin = blockIdx.x / tiles * kTogether, rest = *changed.count - begin;
  if (rest <= 0) return;
  const int mine = static_cast<int>(rest < kTogether ? rest : kTogether);
  const int lane = threadIdx.x % kWarpSize;
  const int64_t across = (blockIdx.x % tiles * kHeadWarps + threadIdx.x / kWarpSize) * kAcross;
  const float* other[kAcross];
  for (int q = 0; q < kAcross; ++q) {
    other[q] = centroids + (across + q < clusters ? across + q : clusters - 1) * d;
  }
  float sum[kAcross][kTogether] = {};
  for (int64_t start = 0; start < d; start += kStaged) {
    const int wide = static_cast<int>(d - start < kStaged ? d - start : kStaged);
    __syncthreads();  // nobody may overwrite the piece before every warp has used it
    for (int r = 0; r < kTogether; ++r) {
      const bool real = r < mine && static_cast<int>(threadIdx.x) < wide;
      staged[r][threadIdx.x] = real ? centroids[changed.clusters[begin + r] * d + start + threadIdx.x] : 0.0f;
    }
    __syncthreads();
    for (int c = lane; c < wide; c += kWarpSize) {
      float number[kAcross];
      for (int q = 0; q < kAcross; ++q) number[q] = other[q][start + c];
#pragma unroll
      for (int r = 0; r < kTogether; ++r) {
#pragma unroll
        for (int q = 0; q < kAcross; ++q) sum[q][r] += number[q] * staged[r][c];
      }
    }
  }
#pragma unroll
  for (int q = 0; q < kAcross; ++q) {
#pragma unroll
    for (int r = 0; r < kTogether; ++r) {
      const float product = warp_sum(sum[q][r]);
      const int64_t j = across + q;
      if (lane != 0 || r >= mine || j >= clusters) continue;
      const int64_t i = changed.clusters[begin + r];
      store_relaxed(gram + i * clusters + j, product);
      store_relaxed(gram + j * clusters + i, product);
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
  const int64_t d = rows.size(1), staged = d <= kMostStaged ? 2 * d * sizeof(float) : 0;
  LAUNCH(update_clusters, static_cast<unsigned>(count), kHeadThreads, staged, current_stream(x),
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
  Tensor first = device_empty(c, {clusters}, ScalarType::Int), list = device_empty(c, {rows + 1}, ScalarType::Int);
  auto* const words = list.mutable_data_ptr<int32_t>();
  auto* const first_row = reinterpret_cast<unsigned*>(first.mutable_data_ptr<int32_t>());
  const Changed changed{words, words + rows};
  fill_bytes(first_row, 0xff, clusters * sizeof *first_row, stream);
  LAUNCH(list_changed, 1, kHeadThreads, 0, stream, y.const_data_ptr<int64_t>(), first_row, changed, rows, clusters);
  LAUNCH(refresh_rows, static_cast<unsigned>(blocks_for(rows, kTogether) * tiles), kHeadThreads, 0, stream,
         gram.mutable_data_ptr<float>(), c.const_data_ptr<float>(), changed, tiles, clusters, c.size(1));
}

}  // namespace

ISE_FAST_CUDA_OPERATORS(m) {
  m.impl("update_memory_", TORCH_BOX(&update_memory_));
  m.impl("refresh_gram_", TORCH_BOX(&refresh_gram_));
}

}  // namespace ise_fast
