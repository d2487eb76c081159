// Kernels that several operators of the ISE head use: exact nearest centroids from approximate similarities, and
// support samples, of a row a block. Threads ask for many numbers before they use the first: a block that waits for one
// number after the other does little else.
//
// Nobody can look at a label on the host without waiting for the device. A label without a centroid makes its results
// NaN; no kernel reads or writes out of bounds for it.
#pragma once

#include <cmath>
#include <type_traits>

#include "../math/dot.h"
#include "../math/ordered_key.h"
#include "allocate.h"
#include "launch.h"
#include "reduce.cuh"
#include "topk.cuh"

namespace ise_fast {
namespace {

constexpr int kHeadThreads = 256;
constexpr int kHeadWarps = kHeadThreads / kWarpSize;
constexpr double kShortestNorm = 1e-12;  // as torch.nn.functional.normalize
constexpr double kUnderflow = 0x1p-100;  // more than the terms of a product lose below the smallest normal number

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

// The interpolation degree lambda: a number, or one in device memory that differs between replays of a CUDA graph.
struct Degree {
  float number;
  const double* given;  // or null

  __device__ float operator()() const { return given ? static_cast<float>(*given) : number; }
  __device__ Degree read() const { return {(*this)(), nullptr}; }  // for use in a loop
};

// The whole inner product, in every lane of a warp; bits as math/dot.h.
__device__ double warp_dot(const float* a, const float* b, int64_t d) {
  constexpr int kAhead = 16;  // numbers of each row that a lane asks for at once
  double sum = 0;
  int64_t c = threadIdx.x % kWarpSize;
  for (; c + (kAhead - 1) * kWarpSize < d; c += kAhead * kWarpSize) {
    float x[kAhead], y[kAhead];
#pragma unroll
    for (int q = 0; q < kAhead; ++q) {
      x[q] = a[c + q * kWarpSize];
      y[q] = b[c + q * kWarpSize];
    }
#pragma unroll
    for (int q = 0; q < kAhead; ++q) sum = fma(static_cast<double>(x[q]), static_cast<double>(y[q]), sum);
  }
  for (; c < d; c += kWarpSize) sum = fma(static_cast<double>(a[c]), static_cast<double>(b[c]), sum);
  return warp_sum(sum);
}

// put(j, get(j)) for the numbers j < count, each by one of so many threads, of which this is number `mine`. It asks for
// several before it puts the first.
template <int kInFlight = 8, class Index, class Get, class Put>
__device__ void share_among(std::type_identity_t<Index> mine, std::type_identity_t<Index> threads, Index count, Get get,
                            Put put) {
  if (count <= threads) {
    if (mine < count) put(mine, get(mine));
    return;
  }
  for (Index begin = mine; begin < count; begin += threads * kInFlight) {
    decltype(get(begin)) number[kInFlight];
#pragma unroll
    for (int q = 0; q < kInFlight; ++q) {
      const int64_t j = begin + q * threads;
      number[q] = get(j < count ? j : begin);  // no branch, behind which loads would wait for each other
    }
#pragma unroll
    for (int q = 0; q < kInFlight; ++q) {
      const int64_t j = begin + q * threads;
      if (j < count) put(j, number[q]);
    }
  }
}

// The same by all threads of the block.
template <int kInFlight = 8, class Index, class Get, class Put>
__device__ void for_all(Index count, Get get, Put put) {
  share_among<kInFlight>(static_cast<Index>(threadIdx.x), static_cast<Index>(blockDim.x), count, get, put);
}

// Some numbers below kMostListed, in no order; in shared memory.
constexpr int kMostListed = 2048;
struct List {
  int number[kMostListed];
  int count;
};

// The j < count <= kMostListed with wanted(get(j), j), into the list. Returns how many, to all threads of the block.
// The caller needs a barrier after the last use of the list and before the next call.
template <class Get, class Wanted>
__device__ int list_wanted(List& list, int count, Get get, Wanted wanted) {
  if (threadIdx.x == 0) list.count = 0;
  __syncthreads();
  for_all(count, get, [&](int j, auto number) {
    if (wanted(number, j)) list.number[atomicAdd(&list.count, 1)] = j;
  });
  __syncthreads();
  return list.count;
}

// The bits of |x|, ordered like integers; NaN is above everything.
__device__ inline unsigned bits_of_length(float x) {
  unsigned bits;
  memcpy(&bits, &x, sizeof bits);
  return bits & 0x7fffffffu;
}

__device__ inline float length_of_bits(unsigned bits) {
  float length;
  memcpy(&length, &bits, sizeof length);
  return length;
}

// Length of the longest centroid, rounded up, as bits. `longest` starts at 0. With a Gram matrix its diagonal is read,
// else a warp sums up each centroid.
__global__ void longest_centroid(const float* centroids, const float* gram, unsigned* longest, int64_t clusters,
                                 int64_t d) {
  const int64_t j = static_cast<int64_t>(blockIdx.x) * kHeadWarps + threadIdx.x / kWarpSize;
  if (j >= clusters) return;
  const double square = gram ? gram[j * (clusters + 1)] : warp_dot(centroids + j * d, centroids + j * d, d);
  if (threadIdx.x % kWarpSize == 0) atomicMax(longest, bits_of_length(static_cast<float>(sqrt(square) * 1.0001)));
}

using NearestKeys = BlockSmallest<kHeadThreads, 2048>;
constexpr int kOffers = 4;                                         // keys that a thread offers at once
constexpr int64_t kNearestAtOnce = 2048 - kHeadThreads * kOffers;  // answers that one pass finds

// The k-th largest number but for number `own` is no less than what this returns, as a key, to all threads of the
// block: the k-th of what is largest for each thread, kWorstKey where there are fewer.
__device__ uint64_t bound_of_kth(const float* numbers, int count, int own, int64_t k, uint64_t* scratch) {
  if (k > kHeadThreads) return kWorstKey;
  float largest = -INFINITY;
  for_all(
      count, [&](int j) { return numbers[j]; },
      [&](int j, float number) { largest = j != own && largest < number ? number : largest; });
  const uint64_t mine = largest > -INFINITY ? descending_key(largest, threadIdx.x) : kWorstKey;
  uint64_t last = 0;
  for (int64_t r = 0; r < k; ++r) {
    last = block_reduce(r == 0 || mine > last ? mine : kWorstKey, Min{}, kWorstKey, scratch);
  }
  return last;
}

// The k nearest centroids of one row a block, from its approximate products z with the centroids from .. from +
// columns: what may belong to the answer is computed exactly (see csrc/cpu/nearest.h for the certificate). With `from`
// above 0, similarity and nearest hold the answer among those before, and k is at most kNearestAtOnce; else similarity
// may be null. `shortest`: Factor::shortest_length. With NaN or infinity in the feature or in a centroid nothing is
// certain, and everything would be computed: the answer is then 0 with similarity NaN.
__global__ void nearest_of_rows(const float* z, const float* features, const float* centroids, const int64_t* labels,
                                const unsigned* longest, float* similarity, int64_t* nearest, int64_t from,
                                int64_t columns, int64_t clusters, int64_t d, int64_t k, double unit_error,
                                double shortest) {
  __shared__ uint64_t scratch[kHeadWarps];
  __shared__ double square_scratch[kHeadWarps];
  __shared__ NearestKeys::Storage storage;
  __shared__ List candidates;
  const int64_t i = blockIdx.x, mine = labels[i] - from;
  const int own = 0 <= mine && mine < columns ? static_cast<int>(mine) : -1;
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  const bool valid = labels[i] >= 0 && labels[i] < clusters;
  const float* const feature = features + i * d;
  const float* const row = z + i * columns;

  double square = 0;
  for_all(d, [&](int64_t c) { return feature[c]; }, [&](int64_t, double x) { square += x * x; });
  square = block_sum(square, square_scratch);
  const uint64_t bound = bound_of_kth(row, static_cast<int>(columns), own, k, scratch);
  const double error =
      unit_error * sqrt(square) * Max{}(static_cast<double>(length_of_bits(*longest)), shortest) + kUnderflow;
  // In float32, whose rounding is a sixteenth of the error at most.
  const auto threshold = static_cast<float>(bound == kWorstKey ? -INFINITY : descending_value(bound) - 2.0625 * error);
  const bool known_before = from == 0 || similarity[i * k] == similarity[i * k];
  const bool finite = known_before && error < INFINITY && threshold < INFINITY;  // for all threads the same

  uint64_t last = 0;
  for (int64_t done = 0; done < k; done += kNearestAtOnce) {
    const int64_t wanted_now = k - done < kNearestAtOnce ? k - done : kNearestAtOnce;
    NearestKeys best(storage, static_cast<int>(wanted_now));
    uint64_t keys[kOffers];
    for (int q = 0; q < kOffers && from > 0; ++q) {
      const int64_t r = q * kHeadThreads + threadIdx.x;
      const bool found = r < k && similarity[i * k + r] > -INFINITY;
      const auto index = static_cast<uint32_t>(found ? nearest[i * k + r] : 0);
      keys[q] = found ? descending_key(similarity[i * k + r], index) : kWorstKey;
    }
    if (from > 0) best.offer(keys);
    for (int64_t begin = 0; finite && begin < columns; begin += kMostListed) {
      const int found = list_wanted(
          candidates, static_cast<int>(columns - begin < kMostListed ? columns - begin : kMostListed),
          [&](int j) { return row[begin + j]; },
          [&](float product, int j) { return begin + j != own && !(product < threshold); });
      // A warp computes a candidate, and the lane that offers it keeps it.
      for (int first = 0; first < found; first += kHeadThreads * kOffers) {
        for (int q = 0; q < kOffers; ++q) {
          keys[q] = kWorstKey;
          for (int turn = 0; turn < kWarpSize; ++turn) {
            const int place = first + (q * kWarpSize + turn) * kHeadWarps + warp;
            if (place >= found) break;
            const int64_t c = from + begin + candidates.number[place];
            const float exact = static_cast<float>(warp_dot(feature, centroids + c * d, d));
            const uint64_t key = descending_key(exact, static_cast<uint32_t>(c));
            if (lane == turn && (done == 0 || key > last)) keys[q] = key;
          }
        }
        best.offer(keys);
      }
      __syncthreads();  // nobody may empty the list before everybody has read it
    }
    best.finish();
    for (int64_t r = threadIdx.x; r < wanted_now; r += kHeadThreads) {
      const uint64_t key = best.result()[r];
      const bool found = finite && key != kWorstKey;
      nearest[i * k + done + r] = found ? key_index(key) : 0;
      if (similarity)
        similarity[i * k + done + r] = !valid || !finite ? NAN : found ? descending_value(key) : -INFINITY;
    }
    last = best.result()[wanted_now - 1];
    __syncthreads();  // nobody may write to the storage before everybody has read it
  }
}

// s_j = u_j / ||u_j||, u_j = f + degree (m_j - o); a block a support. Its length is a sum in the order of one warp, as
// on the CPU.
__global__ void support_rows(const float* features, const float* centroids, const int64_t* labels,
                             const int64_t* nearest, float* supports, float* norms, int64_t rows, int64_t clusters,
                             int64_t d, int64_t k, Degree lambda) {
  __shared__ float norm;
  const float degree = lambda();
  for (int64_t s = blockIdx.x; s < rows * k; s += gridDim.x) {
    const int64_t own = labels[s / k], other = nearest[s];
    const bool valid = own >= 0 && own < clusters && other >= 0 && other < clusters;
    const float *f = features + s / k * d, *m = centroids + (valid ? other : 0) * d,
                *o = centroids + (valid ? own : 0) * d;
    float* const u = supports + s * d;
    const auto put = [&](int64_t c, float number) { u[c] = number; };
    for_all(d, [&](int64_t c) { return f[c] + degree * (m[c] - o[c]); }, put);
    __syncthreads();
    if (threadIdx.x < kWarpSize) {
      const double length = sqrt(warp_dot(u, u, d));
      if (threadIdx.x == 0) {
        norm = valid ? static_cast<float>(length > kShortestNorm ? length : kShortestNorm) : NAN;
        norms[s] = norm;
      }
    }
    __syncthreads();
    for_all(d, [&](int64_t c) { return u[c] / norm; }, put);
  }
}

}  // namespace
}  // namespace ise_fast
