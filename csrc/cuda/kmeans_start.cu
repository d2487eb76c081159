// k-means++, as in csrc/cpu/kmeans_start.cpp, to the same bits. Nothing waits for the device between two draws.
#include "../check_methods.h"
#include "../math/distance.h"
#include "../math/row_sum.h"
#include "finite.cuh"
#include "online_softmax.cuh"

namespace ise_fast {
namespace {

__global__ void first_row(const double* draws, int64_t* chosen, uint8_t* taken, int64_t n) {
  const double place = draws[0] * static_cast<double>(n);
  chosen[0] = place > 0 && place < static_cast<double>(n) ? static_cast<int64_t>(place) : place > 0 ? n - 1 : 0;
  taken[chosen[0]] = 1;
}

// Distances to the last chosen row; a warp a row.
__global__ void approach(const float* x, const int64_t* chosen, double* distance, int64_t n, int64_t d, bool first) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kHeadWarps + threadIdx.x / kWarpSize;
  if (i >= n) return;
  const double to_new = warp_sum(squared_distance_lane(x + i * d, x + *chosen * d, d, threadIdx.x % kWarpSize));
  if (threadIdx.x % kWarpSize == 0) distance[i] = first || to_new < distance[i] ? to_new : distance[i];
}

// Sums of groups and of the chunk, a block of kStartChunk threads each.
__global__ void chunk_sums(const double* distance, double* group, double* chunk, int64_t n) {
  __shared__ double scratch[kStartChunk / kWarpSize];
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kStartChunk + threadIdx.x;
  const double sum = warp_sum(i < n ? distance[i] : 0.0);
  if (i < n && threadIdx.x % kWarpSize == 0) group[i / kStartGroup] = sum;
  if (threadIdx.x % kWarpSize == 0) scratch[threadIdx.x / kWarpSize] = sum;
  __syncthreads();
  if (threadIdx.x >= kWarpSize) return;
  const double all = warp_sum(scratch[threadIdx.x]);
  if (threadIdx.x == 0) chunk[blockIdx.x] = all;
}

// number_at of place_of for a whole warp that asks for 0, 1, ... in turn: 32 numbers are read at once.
struct InTurn {
  const double* numbers;
  int64_t count;
  double mine = 0;

  __device__ double operator()(int64_t i) {
    const int64_t lane = threadIdx.x % kWarpSize;
    if (i % kWarpSize == 0) mine = i + lane < count ? numbers[i + lane] : 0;
    return __shfl_sync(kWholeWarp, mine, static_cast<int>(i % kWarpSize));
  }
};

// The row that a draw falls on; where all distances are 0, the lowest not taken. A warp.
__global__ void draw_row(const double* chunk, int64_t chunks, const double* group, const double* distance, int64_t n,
                         const double* draw, int64_t* chosen, uint8_t* taken) {
  const int64_t lane = threadIdx.x;
  InTurn every{chunk, chunks};
  double total = 0, below = 0;
  for (int64_t b = 0; b < chunks; ++b) total += every(b);
  int64_t row = -1;
  if (total > 0) {
    const double goal = *draw * total;
    const auto within = [](int64_t count, int64_t most) { return count < most ? count : most; };
    const int64_t b = place_of(goal, below, chunks, InTurn{chunk, chunks});
    const int64_t start = b * kStartChunk, groups = (within(n - start, kStartChunk) + kStartGroup - 1) / kStartGroup;
    const int64_t g = place_of(goal, below, groups, InTurn{group + start / kStartGroup, groups});
    const int64_t first = start + g * kStartGroup, rows = within(n - first, kStartGroup);
    row = first + place_of(goal, below, rows, InTurn{distance + first, rows});
  } else {
    for (int64_t begin = 0; row < 0; begin += kWarpSize) {
      const unsigned free = __ballot_sync(kWholeWarp, begin + lane < n && !taken[begin + lane]);
      if (free) row = begin + __ffs(static_cast<int>(free)) - 1;
    }
  }
  __syncwarp();  // nobody may mark the row before every lane has looked for a free one
  if (lane == 0) {
    *chosen = row;
    taken[row] = 1;
  }
}

Tensor kmeans_start(const Tensor& x_in, const Tensor& draws_in) {
  check_kmeans_start(x_in, draws_in);
  const DeviceScope device(x_in);
  const Tensor x = device_contiguous(x_in), draws = device_contiguous(draws_in);
  const int64_t n = x.size(0), d = x.size(1), k = draws.numel(), chunks = (n + kStartChunk - 1) / kStartChunk;
  const cudaStream_t stream = current_stream(x);
  check_finite_rows(x, "x", stream);
  Tensor out = device_empty(x, {k}, ScalarType::Long);
  auto* const chosen = out.mutable_data_ptr<int64_t>();
  const double* const draw = draws.const_data_ptr<double>();
  const Words<double> distance(n, out), group(chunks * kDotLanes, out), chunk(chunks, out);
  const Words<uint8_t> taken(n, out);
  fill_bytes(taken.data(), 0, n, stream);
  for (int64_t c = 0; c < k; ++c) {
    if (c == 0) {
      LAUNCH(first_row, 1, 1, 0, stream, draw, chosen, taken.data(), n);
    } else {
      LAUNCH(chunk_sums, static_cast<unsigned>(chunks), static_cast<unsigned>(kStartChunk), 0, stream, distance.data(),
             group.data(), chunk.data(), n);
      LAUNCH(draw_row, 1, kWarpSize, 0, stream, chunk.data(), chunks, group.data(), distance.data(), n, draw + c,
             chosen + c, taken.data());
    }
    if (c + 1 == k) break;
    LAUNCH(approach, blocks_for(n, kHeadWarps), kHeadThreads, 0, stream, x.const_data_ptr<float>(), chosen + c,
           distance.data(), n, d, c == 0);
  }
  return out;
}

}  // namespace

ISE_FAST_CUDA_OPERATORS(m) {
  m.impl("kmeans_start", TORCH_BOX(&kmeans_start));
}

}  // namespace ise_fast
