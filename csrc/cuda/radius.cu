// Every pair of rows within a radius, of one set or of two, exact: the certified filter rules out what is surely
// farther, the rest is compared in float64, once: among rows of one set (i, j) and (j, i) are one pair, and the
// products are half of the square. Where it pays they are of prefixes along principal axes. Memory is proportional to
// the pairs.
#include <string>
#include <tuple>
#include <vector>

#include "mirror.cuh"
#include "scores.cuh"
#include "within.cuh"

namespace ise_fast {
namespace {

constexpr int64_t kHalfTiles = 8;         // of rows of one set, whose tiles on the diagonal are computed in full
constexpr int64_t kLeastHalfRows = 2048;  // of a tile: smaller ones do not fill a GPU

// offset[r] of a tile, moved to where the tile begins in the whole graph.
__global__ void place_offsets(const int64_t* offset, int64_t* indptr, int64_t before, int64_t count) {
  const int64_t r = thread_index();
  if (r <= count) indptr[r] = before + offset[r];
}

// One search.
template <class T>
struct RadiusSearch {
  Sides<T> sides;
  double bound;
  bool same;  // the queries have the rows of the base
  int64_t block;

  bool half() const { return sides.self(); }
  const Tensor& like() const { return sides.base_side.original; }

  int64_t most_rows(int64_t queries, int64_t n) const {
    const int64_t fit = tile_rows(queries, n, block);
    if (!half() || block > 0) return fit;
    const int64_t rows = std::max(kLeastHalfRows, (queries + kHalfTiles - 1) / kHalfTiles);
    return std::min(fit, (rows + 255) / 256 * 256);
  }

  void mark(const float* product, const Scores<T>& scores, const Marks& marks, Queries queries, int64_t count,
            unsigned long long* marked) const {
    const int64_t across = blocks_for(marks.words - marks.from, kWarpSize);
    LAUNCH(mark_pairs<T>, static_cast<unsigned>(across * blocks_for(count, kFilterWarps * kMarkedRows)), kFilterThreads,
           0, sides.stream, product, scores.query, scores.base, sides.units, marks, queries, count, bound, marked);
  }

  // All columns or prefixes. `width`: see Sides.
  Scores<T> choose_scores(int64_t width) const {
    const double part = half() ? 0.5 : 1.0;
    const SearchSize size{sides.query().n, sides.base().n, sides.base().d, sides.self(), kMarked, part, part};
    return sides.choose(width, size, [&](const Scores<T>& scores, const int64_t* list, int64_t count) {
      const int64_t n = scores.base.n, words = blocks_for(n, kWarpSize);
      const auto [height, buffer] = new_tile(like(), tile_rows(count, n, 0), n);
      const Tensor bits = device_empty(like(), {height, words}, ScalarType::Int);
      Tensor marked = device_zeros(like(), {}, ScalarType::Long);
      const Marks marks{reinterpret_cast<unsigned*>(bits.mutable_data_ptr<int32_t>()), words, 0, same, false};
      for (int64_t first = 0; first < count; first += height) {
        const int64_t rows = std::min(height, count - first);
        const Tensor product = multiply_tile(buffer, scores.query_rows, scores.base_rows, first, rows);
        mark(product.const_data_ptr<float>(), scores, marks, {list, first}, rows, counter(marked));
      }
      return Pilot{static_cast<double>(read_back(counter(marked), sides.stream)), 0};
    });
  }

  // The pairs of all queries, by rows; of one set those with j >= i. `indptr` [queries + 1] receives their offsets,
  // `mirrored` (null: not wanted) how many (i, j) with j > i there are for each j.
  std::vector<Piece> run(const Scores<T>& scores, int64_t* indptr, unsigned long long* mirrored) const {
    const int64_t n = scores.query.n, others = scores.base.n, words = blocks_for(others, kWarpSize);
    const auto [height, buffer] = new_tile(like(), most_rows(n, others), others);
    const Tensor offsets = device_empty(like(), {height + 1}, ScalarType::Long);
    const Tensor bits = device_empty(like(), {height, words}, ScalarType::Int);
    auto* offset = offsets.mutable_data_ptr<int64_t>();
    Marks marks{reinterpret_cast<unsigned*>(bits.mutable_data_ptr<int32_t>()), words, 0, same, half()};
    std::vector<Piece> pieces;
    int64_t total = 0;
    for (int64_t first = 0; first < n; first += height) {
      const int64_t count = std::min(height, n - first);
      if (half()) marks.from = first / kWarpSize;
      const Tensor tile =
          multiply_tile(buffer, scores.query_rows, scores.base_rows, first, count, marks.from * kWarpSize);
      auto* product = tile.mutable_data_ptr<float>();
      mark(product, scores, marks, {nullptr, first}, count, nullptr);
      fill_bytes(offset + count, 0, sizeof *offset, sides.stream);
      LAUNCH(compare_pairs<T>, static_cast<unsigned>(count), kFilterThreads, 0, sides.stream, product, scores.query,
             scores.base, sides.units, marks, first, bound, offset, mirrored);
      exclusive_sum(offset, offset, count + 1, like(), sides.stream);
      LAUNCH(place_offsets, blocks_for(count + 1), kCsrThreads, 0, sides.stream, offset, indptr + first, total, count);
      const int64_t here = read_back(offset + count, sides.stream);
      Tensor indices = device_empty(like(), {here}, ScalarType::Int);
      Tensor values = device_empty(like(), {here}, ScalarType::Float);
      if (here > 0) {
        LAUNCH(write_found, warps_grid(count), kFilterThreads, 0, sides.stream, product, marks, scores.base.pitch,
               first, count, offset, indices.mutable_data_ptr<int32_t>(), values.mutable_data_ptr<float>());
      }
      pieces.push_back({first, count, indices, values});
      total += here;
    }
    return pieces;
  }
};

// Pieces of two sets, one after the other.
std::pair<Tensor, Tensor> joined(std::vector<Piece>& pieces, int64_t total, const Tensor& like) {
  if (pieces.size() == 1) return {pieces[0].indices, pieces[0].values};
  Tensor indices = device_empty(like, {total}, ScalarType::Int);
  Tensor values = device_empty(like, {total}, ScalarType::Float);
  int64_t at = 0;
  for (Piece& piece : pieces) {
    const int64_t size = piece.indices.size(0);
    Tensor to_indices = torch::stable::narrow(indices, 0, at, size);
    Tensor to_values = torch::stable::narrow(values, 0, at, size);
    torch::stable::copy_(to_indices, piece.indices);
    torch::stable::copy_(to_values, piece.values);
    at += size;
    piece.indices = piece.values = Tensor();
  }
  return {indices, values};
}

// Rows of y (null: of x) with rows of x; `same`: y has the rows of x.
template <class T>
CsrTensors graph_within(const Tensor& x, const Tensor* y, bool same, double bound, Metric metric, int64_t block,
                        int64_t width) {
  const DeviceScope device(x);
  const cudaStream_t stream = current_stream(x);
  FilterSide base_side, other_side;
  const FilterUnits units = prepare_filter<T>(base_side, other_side, x, y, metric, stream);
  const RadiusSearch<T> search{{base_side, y ? other_side : base_side, units, stream}, bound, same, block};
  const int64_t n = search.sides.query().n;
  Tensor indptr = device_zeros(x, {n + 1}, ScalarType::Long);
  if (n == 0 || x.size(0) == 0) {
    return {indptr, device_empty(x, {0}, ScalarType::Int), device_empty(x, {0}, ScalarType::Float)};
  }
  Tensor mirrored;
  if (search.half()) mirrored = device_zeros(x, {n + 1}, ScalarType::Long);
  std::vector<Piece> pieces = search.run(search.choose_scores(width), indptr.mutable_data_ptr<int64_t>(),
                                         search.half() ? counter(mirrored) : nullptr);
  int64_t total = 0;
  for (const Piece& piece : pieces) total += piece.indices.size(0);
  if (search.half()) return mirror(indptr, mirrored, pieces, total, stream);
  const auto [indices, values] = joined(pieces, total, x);
  return {indptr, indices, values};
}

CsrTensors pairs_within(const Tensor& x, const Tensor* y, bool same, double eps, Metric metric, int64_t block,
                        int64_t width) {
  check_block(block);
  check_width(width);
  const bool single = x.scalar_type() == ScalarType::Float;
  const double bound = compared_bound(eps, metric, single);
  const auto run = single ? graph_within<float> : graph_within<double>;
  return run(x, y, same, bound, metric, block, width);
}

// (indptr [N + 1] i64, indices i32, values f32). `block`: rows of a tile, 0 chooses; `width`: see Sides. Both are for
// tests.
CsrTensors radius_graph(const Tensor& x, double eps, std::string metric_name, int64_t block, int64_t width) {
  const Metric metric = check_radius_graph(x, eps, metric_name);
  return pairs_within(x, nullptr, true, eps, metric, block, width);
}

// The same between the rows of y and those of x: [rows of y, rows of x]. `same`: y has the rows of x.
CsrTensors radius_pairs(const Tensor& x, const Tensor& y, double eps, std::string metric_name, bool same, int64_t block,
                        int64_t width) {
  const Metric metric = check_radius_graph(x, eps, metric_name);
  check_radius_pairs(x, y, same);
  return pairs_within(x, &y, same, eps, metric, block, width);
}

}  // namespace

ISE_FAST_CUDA_OPERATORS(m) {
  m.impl("radius_graph", TORCH_BOX(&radius_graph));
  m.impl("radius_pairs", TORCH_BOX(&radius_pairs));
}

}  // namespace ise_fast
