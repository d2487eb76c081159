// Every pair of rows within a radius, of one set or of two, exact: the certified filter rules out what is surely
// farther, the rest is compared in float64, once. Each tile of the product is searched, which leaves a bit for each
// pair and the distances of those found in their places, then written when their number is known: memory is
// proportional to the pairs.
#include <string>
#include <tuple>
#include <vector>

#include "cub.h"
#include "pair_filter.cuh"

namespace ise_fast {
namespace {

// Which base rows are within the bound of query `first + blockIdx.x`: a bit for each in its `words` of `masks`, how
// many in `found`, and their distances in place of their products. By a block, so that a hub does not keep one warp
// busy. `same`: the queries are the base rows.
template <class T>
__global__ void find_pairs(float* product, FilterRows<T> query, FilterRows<T> base, FilterUnits units, bool same,
                           double bound, int64_t first, int64_t words, unsigned* masks, int64_t* found) {
  __shared__ int64_t scratch[kFilterWarps];
  const int lane = threadIdx.x % kWarpSize;
  const int64_t r = blockIdx.x, i = first + r;
  const int64_t self = same ? i : -1;
  float* const row = product + r * base.pitch;
  const double limit = exact_score(query, units, i, bound) + score_margin(query, base, units, i);
  int64_t count = 0;
  for (int64_t word = threadIdx.x / kWarpSize; word < words; word += kFilterWarps) {
    const int64_t j = word * kWarpSize + lane;
    const bool possible =
        j < base.n && (j == self || !(static_cast<double>(approximate_score(query, base, row[j], i, j)) > limit));
    bool inside = false;
    for (unsigned left = __ballot_sync(kWholeWarp, possible); left != 0; left &= left - 1) {
      const int at = __ffs(left) - 1;
      const double distance = exact_distance(query, base, units.metric, i, word * kWarpSize + at);
      if (lane != at) continue;
      inside = distance <= bound || j == self;  // a zero row is at cosine distance 1 from itself
      if (inside) row[j] = returned_distance(distance, units.metric);
    }
    const unsigned mask = __ballot_sync(kWholeWarp, inside);
    if (lane == 0) masks[r * words + word] = mask;
    if (lane == 0) count += __popc(mask);
  }
  count = block_sum(count, scratch);
  if (threadIdx.x == 0) found[r] = count;
}

// The pairs that find_pairs has left, columns ascending; a warp a row, a word a lane.
__global__ void write_found(const float* product, const unsigned* masks, int64_t pitch, int64_t words, int64_t count,
                            const int64_t* offset, int32_t* indices, float* values) {
  const int lane = threadIdx.x % kWarpSize;
  const int64_t r = static_cast<int64_t>(blockIdx.x) * kFilterWarps + threadIdx.x / kWarpSize;
  if (r >= count) return;
  int64_t at = offset[r];
  for (int64_t start = 0; start < words; start += kWarpSize) {
    const int64_t word = start + lane;
    unsigned mask = word < words ? masks[r * words + word] : 0;
    const int mine = __popc(mask), before = warp_exclusive_sum(mine);
    for (int64_t to = at + before; mask != 0; mask &= mask - 1, ++to) {
      const int64_t j = word * kWarpSize + __ffs(mask) - 1;
      indices[to] = static_cast<int32_t>(j);
      values[to] = product[r * pitch + j];
    }
    at += __shfl_sync(kWholeWarp, before + mine, kWarpSize - 1);
  }
}

// offset[r] of a tile, moved to where the tile begins in the whole graph.
__global__ void place_offsets(const int64_t* offset, int64_t* indptr, int64_t before, int64_t count) {
  const int64_t r = static_cast<int64_t>(blockIdx.x) * kFilterThreads + threadIdx.x;
  if (r <= count) indptr[r] = before + offset[r];
}

// Rows of y (null: of x) with rows of x; `same`: y has the rows of x.
template <class T>
std::tuple<Tensor, Tensor, Tensor> graph_within(const Tensor& x, const Tensor* y, bool same, double bound,
                                                Metric metric, int64_t block) {
  const DeviceScope device(x);
  const cudaStream_t stream = current_stream(x);
  FilterSide base_side, other_side;
  const FilterUnits units = prepare_filter<T>(base_side, other_side, x, y, metric, stream);
  const FilterSide& query_side = y == nullptr ? base_side : other_side;
  const FilterRows<T> base = base_side.template rows<T>(), query = query_side.template rows<T>();
  const int64_t n = query.n, others = base.n;
  Tensor indptr = device_zeros(x, {n + 1}, ScalarType::Long);
  if (others == 0) return {indptr, device_empty(x, {0}, ScalarType::Int), device_empty(x, {0}, ScalarType::Float)};

  std::vector<std::pair<Tensor, Tensor>> tiles;
  int64_t total = 0;
  const auto [height, buffer] = new_tile(x, tile_rows(n, others, block), others);
  const int64_t words = (others + kWarpSize - 1) / kWarpSize;
  const Tensor offsets = device_empty(x, {height + 1}, ScalarType::Long);
  const Tensor bits = device_empty(x, {height, words}, ScalarType::Int);
  auto* offset = offsets.mutable_data_ptr<int64_t>();
  auto* masks = reinterpret_cast<unsigned*>(bits.mutable_data_ptr<int32_t>());
  for (int64_t first = 0; first < n; first += height) {
    const int64_t count = std::min(height, n - first);
    const Tensor product = multiply_tile(buffer, query_side.rounded, base_side.rounded, first, count);
    fill_bytes(offset + count, 0, sizeof *offset, stream);
    LAUNCH(find_pairs<T>, static_cast<unsigned>(count), kFilterThreads, 0, stream, product.mutable_data_ptr<float>(),
           query, base, units, same, bound, first, words, masks, offset);
    exclusive_sum(offset, offset, count + 1, x, stream);
    LAUNCH(place_offsets, static_cast<unsigned>(count / kFilterThreads + 1), kFilterThreads, 0, stream, offset,
           indptr.mutable_data_ptr<int64_t>() + first, total, count);
    const int64_t here = read_back(offset + count, stream);
    Tensor indices = device_empty(x, {here}, ScalarType::Int);
    Tensor values = device_empty(x, {here}, ScalarType::Float);
    if (here > 0) {
      LAUNCH(write_found, warps_grid(count), kFilterThreads, 0, stream, product.const_data_ptr<float>(), masks,
             base.pitch, words, count, offset, indices.mutable_data_ptr<int32_t>(), values.mutable_data_ptr<float>());
    }
    tiles.emplace_back(indices, values);
    total += here;
  }
  if (tiles.size() == 1) return {indptr, tiles[0].first, tiles[0].second};

  Tensor indices = device_empty(x, {total}, ScalarType::Int);
  Tensor values = device_empty(x, {total}, ScalarType::Float);
  int64_t at = 0;
  for (auto& [tile_indices, tile_values] : tiles) {
    const int64_t size = tile_indices.size(0);
    Tensor to_indices = torch::stable::narrow(indices, 0, at, size);
    Tensor to_values = torch::stable::narrow(values, 0, at, size);
    torch::stable::copy_(to_indices, tile_indices);
    torch::stable::copy_(to_values, tile_values);
    at += size;
    tile_indices = tile_values = Tensor();
  }
  return {indptr, indices, values};
}

std::tuple<Tensor, Tensor, Tensor> pairs_within(const Tensor& x, const Tensor* y, bool same, double eps, Metric metric,
                                                int64_t block) {
  const bool single = x.scalar_type() == ScalarType::Float;
  const double bound = compared_bound(eps, metric, single);
  const auto run = single ? graph_within<float> : graph_within<double>;
  return run(x, y, same, bound, metric, block);
}

// (indptr [N + 1] i64, indices i32, values f32). `block`: rows of a tile, 0 chooses (for tests).
std::tuple<Tensor, Tensor, Tensor> radius_graph(const Tensor& x, double eps, std::string metric_name, int64_t block,
                                                int64_t width) {
  check_block(block);
  check_width(width);
  const Metric metric = check_radius_graph(x, eps, metric_name);
  return pairs_within(x, nullptr, true, eps, metric, block);
}

// The same between the rows of y and those of x: [rows of y, rows of x]. `same`: y has the rows of x.
std::tuple<Tensor, Tensor, Tensor> radius_pairs(const Tensor& x, const Tensor& y, double eps, std::string metric_name,
                                                bool same) {
  const Metric metric = check_radius_graph(x, eps, metric_name);
  check_radius_pairs(x, y, same);
  return pairs_within(x, &y, same, eps, metric, 0);
}

}  // namespace

ISE_FAST_CUDA_OPERATORS(m) {
  m.impl("radius_graph", TORCH_BOX(&radius_graph));
  m.impl("radius_pairs", TORCH_BOX(&radius_pairs));
}

}  // namespace ise_fast
