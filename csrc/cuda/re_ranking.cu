// k-reciprocal re-ranking; the formulas are in csrc/cpu/re_ranking.cpp. The bits are the CPU operator's: every sum has
// its order, or is known to round to the same float32. Beside the result only tiles and sparse rows are stored.
#include "../check_rank.h"
#include "furthest.cuh"
#include "jaccard.cuh"
#include "k_reciprocal.cuh"
#include "pattern.cuh"
#include "slices.cuh"

namespace ise_fast {
namespace {

constexpr int kMixThreads = 256;
constexpr int kMixWarps = kMixThreads / kWarpSize;
constexpr int kMixTile = 4;       // queries of a warp: what is known of a gallery row serves four pairs
constexpr int64_t kMixWidth = 4;  // of a tile, in its heights

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

// out = weight * (Jaccard distance of the shared mass in `out`) + lambda * d, of a tile of queries by gallery rows: the
// squared distance only has to be known well enough to be rounded to float32. Division and rounding are monotone, so
// where both ends of what it can be give one float32, that is it; other pairs are added up in the CPU's order. A lane a
// gallery row, kMixTile queries a warp.
__global__ void __launch_bounds__(kMixThreads)
    mix_distances(SliceSums sums, SliceTerms query_terms, SliceTerms gallery_terms, const float* queries,
                  const float* gallery, int64_t d, int64_t height, int64_t width, const double* furthest, float lambda,
                  float weight, float* out, int64_t pitch) {
  const int lane = threadIdx.x % kWarpSize;
  const int64_t across = (width + kWarpSize - 1) / kWarpSize;
  const int64_t warp = static_cast<int64_t>(blockIdx.x) * kMixWarps + threadIdx.x / kWarpSize;
  const int64_t first = warp / across * kMixTile, start = warp % across * kWarpSize;
  if (first >= height) return;
  const int64_t g = Min{}(start + lane, width - 1);  // beyond the end: the last one again, not written
  int64_t query[kMixTile];
#pragma unroll
  for (int t = 0; t < kMixTile; ++t) query[t] = Min{}(first + t, height - 1);
  double dot[kMixTile];
  slice_dots(sums, query, g, dot);

  const SlicedRow entry(gallery_terms, g);
#pragma unroll
  for (int t = 0; t < kMixTile; ++t) {
    const int64_t q = first + t;
    if (q >= height) return;
    const NearlySquared squared(SlicedRow(query_terms, q), entry, dot[t], d);
    const double most = furthest[q], inverse = most > 0 ? 1 / most : 0.0;
    float distance = static_cast<float>((squared.value + squared.error) * inverse);
    const bool open =
        start + lane < width && !(static_cast<float>((squared.value - squared.error) * inverse) == distance);
    for (unsigned left = __ballot_sync(kWholeWarp, open); left != 0; left &= left - 1) {
      const int owner = __ffs(left) - 1;
      const double exact = warp_sum(squared_distance_lane(queries + q * d, gallery + (start + owner) * d, d, lane));
      if (lane == owner) distance = static_cast<float>(scaled(exact, most));
    }
    if (start + lane >= width) continue;
    float& mixed = out[q * pitch + g];
    mixed = lambda * distance + weight * jaccard_from_shared(mixed);
  }
}

// Room for the products of a tile of queries by gallery rows.
struct MixTile {
  SlicedRows queries, gallery;
  Tensor planes;  // [sums, queries, gallery rows filled up to whole sectors] f32

  MixTile(const Tensor& like, int64_t height, int64_t width, int64_t d)
      : queries(like, height, d, false),
        gallery(like, width, d, true),
        planes(device_empty(like, {count_slice_sums(queries.whole), height, whole_sectors(width)}, ScalarType::Float)) {
  }
};

// Tiles of 2,048 queries by 8,192 gallery rows hold a GB with 2,048 columns, or fewer where that is more than an eighth
// of the device; `block` by four times `block` for tests.
int64_t mix_height(int64_t d, int64_t block) {
  constexpr int64_t kMost = 2048, kFewest = 16;
  if (block > 0) return std::min(block, kMost);
  const auto bytes = [&](int64_t height) {
    const int64_t whole = whole_sectors(d), planes = count_slice_sums(whole);
    return height * (5 * kSlices * whole * 2 + planes * kMixWidth * height * 4);
  };
  int64_t height = kMost;
  while (height > kFewest && bytes(height) > device_bytes() / 8) height /= 2;
  return height;
}

// rows: queries, then gallery. out [queries, gallery]: the shared mass, and then the result.
void mix_rows(const Tensor& x, int64_t queries, const double* furthest, double lambda, int64_t block, float* out,
              cudaStream_t stream) {
  const int64_t d = x.size(1), gallery = x.size(0) - queries;
  const auto* rows = x.const_data_ptr<float>();
  const MixTile tile = halve_on_failure(mix_height(d, block), 1, [&](int64_t height) {
    return MixTile(x, std::min(height, queries), std::min(kMixWidth * height, gallery), d);
  });
  const int64_t most_queries = tile.planes.size(1), most_rows = tile.gallery.terms.size(1);
  for (int64_t g = 0; g < gallery; g += most_rows) {
    const int64_t width = std::min(most_rows, gallery - g);
    const float* entries = rows + (queries + g) * d;
    tile.gallery.take(entries, width, d, stream);
    for (int64_t q = 0; q < queries; q += most_queries) {
      const int64_t height = std::min(most_queries, queries - q);
      tile.queries.take(rows + q * d, height, d, stream);
      multiply_slices(tile.planes, tile.queries, tile.gallery, height, width);
      const int64_t warps = (height + kMixTile - 1) / kMixTile * ((width + kWarpSize - 1) / kWarpSize);
      LAUNCH(mix_distances, blocks_for(warps, kMixWarps), kMixThreads, 0, stream,
             slice_sums(tile.planes, tile.queries.whole), tile.queries.pointers(), tile.gallery.pointers(),
             rows + q * d, entries, d, height, width, furthest + q, static_cast<float>(lambda),
             static_cast<float>(1 - lambda), out + q * gallery + g, gallery);
    }
  }
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
  mix_rows(x, queries, furthest.data(), lambda, block, out, stream);
  return result;
}

}  // namespace

ISE_FAST_CUDA_OPERATORS(m) {
  m.impl("re_ranking", TORCH_BOX(&re_ranking));
}

}  // namespace ise_fast
