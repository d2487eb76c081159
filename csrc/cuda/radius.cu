// Every pair of rows within a radius, exact: the certified filter rules out what is surely farther, the rest is
// compared in float64. Each tile of the product is counted, then written: memory is proportional to the pairs.
#include <string>
#include <tuple>
#include <vector>

#include "cub.h"
#include "pair_filter.cuh"

namespace ise_fast {
namespace {

// The pairs of row `first + warp`, columns ascending. Without `indices` they are only counted.
template <class T>
__global__ void pairs_within(const float* product, FilterRows<T> rows, FilterUnits units, double bound, int64_t first,
                             int64_t count, int64_t* offset, int32_t* indices, float* values) {
  const int lane = threadIdx.x % kWarpSize;
  const int64_t r = static_cast<int64_t>(blockIdx.x) * kFilterWarps + threadIdx.x / kWarpSize;
  if (r >= count) return;
  const int64_t i = first + r;
  const double limit = exact_score(rows, units, i, bound) + score_margin(rows, rows, units, i);
  int64_t found = 0;
  for (int64_t start = 0; start < rows.n; start += kWarpSize) {
    const int64_t j = start + lane;
    const bool possible =
        j < rows.n &&
        (j == i || !(static_cast<double>(approximate_score(rows, rows, product[r * rows.n + j], i, j)) > limit));
    unsigned inside = 0;
    double mine = 0;
    for (unsigned left = __ballot_sync(kWholeWarp, possible); left != 0; left &= left - 1) {
      const int at = __ffs(left) - 1;
      const double distance = exact_distance(rows, rows, units.metric, i, start + at);
      if (lane == at) mine = distance;
      // A zero row is at cosine distance 1 from itself.
      if (distance <= bound || start + at == i) inside |= 1u << at;
    }
    if (indices != nullptr && (inside >> lane & 1u)) {
      const int64_t to = offset[r] + found + __popc(inside & ((1u << lane) - 1));
      indices[to] = static_cast<int32_t>(j);
      values[to] = returned_distance(mine, units.metric);
    }
    found += __popc(inside);
  }
  if (indices == nullptr && lane == 0) offset[r] = found;
}

// offset[r] of a tile, moved to where the tile begins in the whole graph.
__global__ void place_offsets(const int64_t* offset, int64_t* indptr, int64_t before, int64_t count) {
  const int64_t r = static_cast<int64_t>(blockIdx.x) * kFilterThreads + threadIdx.x;
  if (r <= count) indptr[r] = before + offset[r];
}

template <class T>
std::tuple<Tensor, Tensor, Tensor> graph_within(const Tensor& x, double bound, Metric metric, int64_t block) {
  const DeviceScope device(x);
  const cudaStream_t stream = current_stream(x);
  FilterSide side, none;
  const FilterUnits units = prepare_filter<T>(side, none, x, nullptr, metric, stream);
  const FilterRows<T> rows = side.template rows<T>();
  const int64_t n = rows.n;
  Tensor indptr = device_zeros(x, {n + 1}, ScalarType::Long);

  std::vector<std::pair<Tensor, Tensor>> tiles;
  int64_t total = 0;
  const auto [height, buffer] = new_tile(x, tile_rows(n, n, block), n);
  const Tensor offsets = device_empty(x, {height + 1}, ScalarType::Long);
  auto* offset = offsets.mutable_data_ptr<int64_t>();
  for (int64_t first = 0; first < n; first += height) {
    const int64_t count = std::min(height, n - first);
    const Tensor product = multiply_tile(buffer, side.rounded, side.rounded, first, count);
    const auto pairs = [&](int32_t* indices, float* values) {
      LAUNCH(pairs_within<T>, warps_grid(count), kFilterThreads, 0, stream, product.const_data_ptr<float>(), rows,
             units, bound, first, count, offset, indices, values);
    };
    fill_bytes(offset + count, 0, sizeof *offset, stream);
    pairs(nullptr, nullptr);
    exclusive_sum(offset, offset, count + 1, x, stream);
    LAUNCH(place_offsets, static_cast<unsigned>(count / kFilterThreads + 1), kFilterThreads, 0, stream, offset,
           indptr.mutable_data_ptr<int64_t>() + first, total, count);
    const int64_t here = read_back(offset + count, stream);
    Tensor indices = device_empty(x, {here}, ScalarType::Int);
    Tensor values = device_empty(x, {here}, ScalarType::Float);
    if (here > 0) pairs(indices.mutable_data_ptr<int32_t>(), values.mutable_data_ptr<float>());
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

// (indptr [N + 1] i64, indices i32, values f32). `block`: rows of a tile, 0 chooses (for tests).
std::tuple<Tensor, Tensor, Tensor> radius_graph(const Tensor& x, double eps, std::string metric_name, int64_t block,
                                                int64_t /*width*/) {
  check_block(block);
  const Metric metric = check_radius_graph(x, eps, metric_name);
  const bool single = x.scalar_type() == ScalarType::Float;
  const double bound = compared_bound(eps, metric, single);
  return single ? graph_within<float>(x, bound, metric, block) : graph_within<double>(x, bound, metric, block);
}

}  // namespace

ISE_FAST_CUDA_OPERATORS(m) {
  m.impl("radius_graph", TORCH_BOX(&radius_graph));
}

}  // namespace ise_fast
