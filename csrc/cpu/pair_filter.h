// The certified filter: approximate scores of all pairs of rows from the library's float32 matrix product, with a
// proven bound on how far each may be from the exact one. Callers keep the pairs that may matter and compare those
// exactly, so that the answer is the exact one however the product was blocked, threaded or summed.
//
// Score of query q and base row b, smaller is nearer:  ||b||^2 / 2 - q.b  (that is (distance - ||q||^2) / 2; for the
// cosine the rows are scaled to length 1 and the score is -q.b). With u = 2^-24 a float32 product of d terms is wrong
// by at most d u / (1 - d u) * ||q|| ||b||, whatever the order of its sum (Cauchy-Schwarz).
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <mutex>
#include <utility>
#include <vector>

#include "../check_neighbors.h"
#include "../math/distance.h"
#include "../search_progress.h"
#include "matrix.h"
#include "parallel.h"
#include "tensors.h"

namespace ise_fast {

// Rows as the filter sees them, and how the exact comparison sees them.
struct FilterRows {
  Tensor original;              // [n, d], contiguous
  std::vector<double> squared;  // dot(row, row) of the original
  Tensor rows;                  // [n, d] float32: scaled by a power of two (cosine: to length 1)
  std::vector<float> half;      // ||row||^2 / 2 in the units of `rows`; cosine: 0
};

class PairFilter {
public:
  // Checks that all features are finite. `y` is absent when the rows of x are compared with each other. `rounded`: how
  // far the exact score of the rows that are meant can be from that of these, over the square of both lengths together.
  PairFilter(const Tensor& x, const Tensor* y, Metric metric, double rounded = 0);

  const FilterRows& query() const { return self_ ? base_ : query_; }
  const FilterRows& base() const { return base_; }
  bool self() const { return self_; }
  // How far the score of query i with any base row can be from the exact one; infinite where nothing is known.
  double margin(int64_t i) const { return margin_of(i, relative_); }
  // The same for the compared (Euclidean) distance.
  double distance_margin(int64_t i) const { return 2 * margin(i) / (scale_ * scale_); }
  // The same for scores that are wrong by at most `relative` times the lengths of both rows.
  double margin_of(int64_t i, double relative) const {
    return relative * longest_ * length(i) + absolute_ + rounding_ * square(length(i) + longest_);
  }
  // The exact score that belongs to a compared distance.
  double exact_score(int64_t i, double distance) const;
  // Every base row whose compared distance to query i is at most `distance` has a score of at most this.
  float score_limit(int64_t i, double distance) const;

  // Length of row i of one side, in the units of `rows`; a zero row has none.
  double filter_length(const FilterRows& side, int64_t i) const;
  // margin(i) is margin_of(i, relative()).
  double relative() const { return relative_; }
  // Relative error of the factors of the library's product.
  double factor_rounding() const { return factor_rounding_; }
  // Whether the scores say anything.
  bool bounded() const { return absolute_ < std::numeric_limits<double>::infinity(); }

private:
  static double square(double value) { return value * value; }
  // At least 1 under the cosine: a zero row counts as a unit row there.
  double length(int64_t i) const;

  Metric metric_;
  bool self_;
  FilterRows base_, query_;
  double scale_ = 1;    // rows = original * scale
  double longest_ = 0;  // length of the longest base row, in the units of `rows`
  double factor_rounding_;
  double relative_, absolute_, rounding_;
};

// The smallest float32 that is certainly above `value`.
float above(double value);

// Positions j in [0, n) with half[j] - product[j] <= limit, ascending; returns how many. `hits` has room for n.
int64_t find_row_hits(const float* product, const float* half, float limit, int64_t n, int32_t* hits);
// Positions j in [0, n) with half - product[j] <= limit[j].
int64_t find_column_hits(const float* product, float half, const float* limit, int64_t n, int32_t* hits);

inline Matrix<const float> row_matrix(const Tensor& rows) {
  return {rows.const_data_ptr<float>(), rows.size(0), rows.size(1), rows.size(1)};
}

// One block of the product query . base^T.
struct Tile {
  const float* product;
  int64_t row, rows, column, columns;  // product[r * columns + c]: row + r of the query, column + c of the base
};

// Columns that are searched at once: the caller's limits may tighten in between.
inline constexpr int64_t kScan = 512;

// add(row, column, score) for every pair of the tile with score <= limit[row], columns ascending.
template <class Add>
void scan_rows(const Tile& tile, const float* base_half, const float* limit, const Add& add) {
  int32_t hits[kScan];
  for (int64_t r = 0; r < tile.rows; ++r) {
    for (int64_t c = 0; c < tile.columns; c += kScan) {
      const float* product = tile.product + r * tile.columns + c;
      const float* half = base_half + tile.column + c;
      const int64_t n = find_row_hits(product, half, limit[tile.row + r], std::min(kScan, tile.columns - c), hits);
      for (int64_t h = 0; h < n; ++h) {
        add(tile.row + r, tile.column + c + hits[h], half[hits[h]] - product[hits[h]]);
      }
    }
  }
}

// The transposed tile: add(column, row, score) for every pair with score <= limit[column].
template <class Add>
void scan_columns(const Tile& tile, const float* query_half, const float* limit, const Add& add) {
  int32_t hits[kScan];
  for (int64_t c = 0; c < tile.columns; c += kScan) {
    for (int64_t r = 0; r < tile.rows; ++r) {
      const float* product = tile.product + r * tile.columns + c;
      const float half = query_half[tile.row + r];
      const int64_t width = std::min(kScan, tile.columns - c);
      const int64_t n = find_column_hits(product, half, limit + tile.column + c, width, hits);
      for (int64_t h = 0; h < n; ++h) add(tile.column + c + hits[h], tile.row + r, half - product[hits[h]]);
    }
  }
}

// Rows and columns of a tile.
struct TileShape {
  int64_t height, width;
};

// A shape that leaves every thread several tiles and a tile in the cache; with `self` it is square. `block`: rows and
// columns of a tile, 0 chooses.
TileShape tile_shape(int64_t rows, int64_t columns, bool self, int64_t block);

// How many tiles scan_pairs takes.
inline int64_t tile_count(int64_t rows, int64_t columns, bool self, TileShape shape) {
  const int64_t down = (rows + shape.height - 1) / shape.height, across = (columns + shape.width - 1) / shape.width;
  return self ? down * (down + 1) / 2 : down * across;
}

// Calls add(i, j, score) for every query i and base row j with score <= limit[i], in no particular order, from several
// threads but never from two at once for one i; `add` may lower limit[i] and must then compare again. With `self` query
// and base are the same rows, or one is the other's negative: the tiles below the diagonal are then read off those
// above.
//
// A thread takes a tile of the product, computes it alone and searches it while it is in its cache. What rows of one
// block have found is guarded by a lock: the search takes a hundredth of the time of the product, so few wait. `watch`,
// if there is one, is told of every tile.
template <class Add>
void scan_pairs(Matrix<const float> a, Matrix<const float> b, bool self, TileShape shape, const float* query_half,
                const float* base_half, const float* limit, const Add& add, SearchProgress* watch = nullptr) {
  const int64_t rows = a.rows, columns = b.rows, d = a.columns;
  const int64_t down = (rows + shape.height - 1) / shape.height, across = (columns + shape.width - 1) / shape.width;
  std::vector<std::mutex> found(down);
  // Along diagonals or down columns: tiles that are computed at the same time lie in different rows.
  std::vector<std::pair<int64_t, int64_t>> tiles;
  for (int64_t c = 0; c < across; ++c) {
    for (int64_t r = 0; r < (self ? down - c : down); ++r) tiles.emplace_back(r, self ? r + c : c);
  }
  parallel_blocks(static_cast<int64_t>(tiles.size()), [&](Blocks& next) {
    std::vector<float> product(std::min(rows, shape.height) * std::min(columns, shape.width));
    for (int64_t t = next(); t < static_cast<int64_t>(tiles.size()); t = next()) {
      const auto [r, c] = tiles[t];
      const int64_t row = r * shape.height, column = c * shape.width;
      const Tile tile{product.data(), row, std::min(shape.height, rows - row), column,
                      std::min(shape.width, columns - column)};
      multiply_tile(Matrix<float>{product.data(), tile.rows, tile.columns, tile.columns}, a.block(row, tile.rows, 0, d),
                    b.block(column, tile.columns, 0, d).transposed(), false);
      {
        const std::lock_guard guard(found[r]);
        scan_rows(tile, base_half, limit, add);
      }
      if (self && r != c) {
        const std::lock_guard guard(found[c]);
        scan_columns(tile, query_half, limit, add);
      }
      if (watch) watch->step();
    }
  });
}

}  // namespace ise_fast
