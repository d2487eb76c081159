// k-reciprocal re-ranking; the formulas are in csrc/cpu/re_ranking.cpp. Every sum has the CPU operator's order, so the
// bits are the same. Beside the result only tiles and sparse rows are stored.
#include "../check_rank.h"
#include "furthest.cuh"
#include "jaccard.cuh"
#include "k_reciprocal.cuh"
#include "pattern.cuh"

namespace ise_fast {
namespace {

constexpr int kMixThreads = 256;
constexpr int kMixWarps = kMixThreads / kWarpSize;
constexpr int kMixTile = 4;  // queries, and gallery rows, of a warp: each row that it reads serves four pairs

__device__ double scaled(double squared, double furthest) {
  return furthest > 0 ? squared / furthest : 0.0;
}

// V, a row by a warp.
__global__ void weigh(const double* squared, const double* furthest, Csr star, float* v) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kCsrWarps + threadIdx.x / kWarpSize;
  if (i >= star.rows) return;
  normalise_row(
      star.indptr[i], star.indptr[i + 1],
      [&](int64_t p) { return exp_nonpositive(static_cast<float>(-scaled(squared[p], furthest[i]))); }, v);
}

// Row blockIdx.x of `out`: what the query shares with every gallery row.
__global__ void __launch_bounds__(kMassThreads) shared_rows(Csr v, Csr columns, int64_t gallery, float* out) {
  sum_shared_mass(v, columns, blockIdx.x, gallery, out + blockIdx.x * gallery);
}

// out = weight * (Jaccard distance of the shared mass in `out`) + lambda * d, a tile of queries by gallery rows a warp.
__global__ void __launch_bounds__(kMixThreads)
    mix_distances(const float* rows, int64_t d, int64_t queries, int64_t gallery, const double* furthest, float lambda,
                  float weight, float* out) {
  const int lane = threadIdx.x % kWarpSize;
  const int64_t across = (gallery + kMixTile - 1) / kMixTile;
  const int64_t tile = static_cast<int64_t>(blockIdx.x) * kMixWarps + threadIdx.x / kWarpSize;
  const int64_t first_query = tile / across * kMixTile, first_entry = tile % across * kMixTile;
  if (first_query >= queries) return;
  const float* query[kMixTile];
  const float* entry[kMixTile];
#pragma unroll
  for (int t = 0; t < kMixTile; ++t) {  // beyond the end: the last one again, not written
    query[t] = rows + Min{}(first_query + t, queries - 1) * d;
    entry[t] = rows + (queries + Min{}(first_entry + t, gallery - 1)) * d;
  }

  // squared_distance_lane of math/distance.h for all pairs at once
  double sum[kMixTile][kMixTile] = {};
  for (int64_t c = lane; c < d; c += kWarpSize) {
    double value[kMixTile];
#pragma unroll
    for (int t = 0; t < kMixTile; ++t) value[t] = entry[t][c];
#pragma unroll
    for (int q = 0; q < kMixTile; ++q) {
      const double mine = query[q][c];
#pragma unroll
      for (int t = 0; t < kMixTile; ++t) {
        const double difference = mine - value[t];
        sum[q][t] += difference * difference;
      }
    }
  }

  double squared = 0.0;  // of the pair that this lane writes
#pragma unroll
  for (int pair = 0; pair < kMixTile * kMixTile; ++pair) {
    const double whole = warp_sum(sum[pair / kMixTile][pair % kMixTile]);
    if (lane == pair) squared = whole;
  }
  const int64_t q = first_query + lane / kMixTile, g = first_entry + lane % kMixTile;
  if (lane >= kMixTile * kMixTile || q >= queries || g >= gallery) return;
  float& mixed = out[q * gallery + g];
  mixed = lambda * static_cast<float>(scaled(squared, furthest[q])) + weight * jaccard_from_shared(mixed);
}

// `neighbours`: k1 + 1 columns. `block`: rows of a tile of the filter, 0 chooses (for tests).
Tensor re_ranking(const Tensor& features, const Tensor& neighbours, int64_t queries, int64_t k2, double lambda,
                  int64_t block) {
  check_block(block);
  check_re_ranking(features, neighbours, queries, k2, lambda);
  const DeviceScope device(features);
  const cudaStream_t stream = current_stream(features);
  const Tensor x = device_contiguous(features), table = device_contiguous(neighbours);
  const int64_t n = x.size(0), d = x.size(1), columns = table.size(1), gallery = n - queries;
  Tensor result = device_empty(x, {queries, gallery});
  if (n == 0) return result;
  const auto* rows = x.const_data_ptr<float>();
  auto* out = result.mutable_data_ptr<float>();

  const Scratch<int32_t> nn = narrowed(table, stream);
  const Scratch<double> furthest(n, x);
  furthest_squared(x, furthest.data(), block, stream);
  CsrTensors v = expanded_sets(nn.data(), n, columns, half_width(columns - 1), x, stream);
  {
    auto& [indptr, indices, values] = v;
    const Csr star = device_csr<int32_t, float>(indptr, indices, values);
    const Scratch<double> squared(indices.size(0), x);
    symmetric_values<SquaredDistance>(x, star, squared.data(), stream);
    LAUNCH(weigh, blocks_for(n, kCsrWarps), kCsrThreads, 0, stream, squared.data(), furthest.data(), star,
           values.mutable_data_ptr<float>());
    if (k2 > 1) v = query_expansion(nn.data(), n, columns, k2, star, bits_for(n), x, stream);
  }
  if (queries == 0 || gallery == 0) return result;

  const Csr encoding = device_csr<int32_t, float>(std::get<0>(v), std::get<1>(v), std::get<2>(v));
  const int64_t entries = std::get<1>(v).size(0) - read_back(encoding.indptr + queries, stream);
  const auto [indptr, indices, values] = transposed_rows(encoding, queries, entries, n, x, stream);
  LAUNCH(shared_rows, static_cast<unsigned>(queries), kMassThreads, 0, stream, encoding,
         device_csr<int32_t, float>(indptr, indices, values), gallery, out);
  const int64_t tiles = (queries + kMixTile - 1) / kMixTile * ((gallery + kMixTile - 1) / kMixTile);
  LAUNCH(mix_distances, blocks_for(tiles, kMixWarps), kMixThreads, 0, stream, rows, d, queries, gallery,
         furthest.data(), static_cast<float>(lambda), static_cast<float>(1 - lambda), out);
  return result;
}

}  // namespace

ISE_FAST_CUDA_OPERATORS(m) {
  m.impl("re_ranking", TORCH_BOX(&re_ranking));
}

}  // namespace ise_fast
