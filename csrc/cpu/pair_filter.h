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
#include <vector>

#include "../check_neighbors.h"
#include "../math/distance.h"

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
  // Checks that all features are finite. `y` is absent when the rows of x are compared with each other.
  PairFilter(const Tensor& x, const Tensor* y, Metric metric);

  const FilterRows& query() const { return self_ ? base_ : query_; }
  const FilterRows& base() const { return base_; }
  bool self() const { return self_; }
  // How far the score of query i with any base row can be from the exact one; infinite where nothing is known.
  double margin(int64_t i) const {
    return relative_ * length(i) + absolute_ + rounding_ * square(length(i) + longest_);
  }
  // Every base row whose compared distance to query i is at most `distance` has a score of at most this.
  float score_limit(int64_t i, double distance) const;

private:
  static double square(double value) { return value * value; }
  double length(int64_t i) const;

  Metric metric_;
  bool self_;
  FilterRows base_, query_;
  double scale_ = 1;    // rows = original * scale
  double longest_ = 0;  // length of the longest base row, in the units of `rows`
  double relative_, absolute_, rounding_;
};

// The smallest float32 that is certainly above `value`.
float above(double value);

// Positions j in [0, n) with half[j] - product[j] <= limit, ascending; returns how many. `hits` has room for n.
int64_t find_row_hits(const float* product, const float* half, float limit, int64_t n, int32_t* hits);
// Positions j in [0, n) with half - product[j] <= limit[j].
int64_t find_column_hits(const float* product, float half, const float* limit, int64_t n, int32_t* hits);

// One block of the product query . base^T.
struct Tile {
  const float* product;
  int64_t stride, row, rows, column, columns;
};

// Columns (or rows) that are searched at once: the caller's limits may tighten in between.
inline constexpr int64_t kScan = 512;

// Calls add(row, column, score) for every pair of the tile with score <= limit[row], columns ascending; and, if
// `mirrored`, also add(column, row, score) with score <= limit[column]. No two threads add to one list; `add` may lower
// its limit and must then compare again.
template <class Add>
void scan_tile(const Tile& tile, bool mirrored, const float* row_half, const float* column_half, const float* limit,
               const Add& add) {
  const int64_t threads = torch::stable::get_num_threads();
  torch::stable::parallel_for(0, threads, 1, [&](int64_t first_part, int64_t last_part) {
    int32_t hits[kScan];
    for (int64_t part = first_part; part < last_part; ++part) {
      for (int64_t r = tile.rows * part / threads; r < tile.rows * (part + 1) / threads; ++r) {
        for (int64_t c = 0; c < tile.columns; c += kScan) {
          const float* product = tile.product + r * tile.stride + c;
          const float* half = column_half + tile.column + c;
          const int64_t n = find_row_hits(product, half, limit[tile.row + r], std::min(kScan, tile.columns - c), hits);
          for (int64_t h = 0; h < n; ++h) {
            add(tile.row + r, tile.column + c + hits[h], half[hits[h]] - product[hits[h]]);
          }
        }
      }
      if (!mirrored) continue;
      const int64_t last = tile.columns * (part + 1) / threads;
      for (int64_t c = tile.columns * part / threads; c < last; c += kScan) {
        for (int64_t r = 0; r < tile.rows; ++r) {
          const float* product = tile.product + r * tile.stride + c;
          const float half = row_half[tile.row + r];
          const int64_t n = find_column_hits(product, half, limit + tile.column + c, std::min(kScan, last - c), hits);
          for (int64_t h = 0; h < n; ++h) add(tile.column + c + hits[h], tile.row + r, half - product[hits[h]]);
        }
      }
    }
  });
}

// out = a . b^T by the library, on torch's threads. The matrices are float32; out may be a part of a larger one.
void multiply_transposed(const Tensor& a, const Tensor& b, Tensor& out);

// Calls visit(tile, mirrored) for blocks that cover query . base^T. With `self` only blocks on and above the diagonal:
// those above are `mirrored`, they stand for their transpose too. `block`: rows of a tile; 0 chooses.
template <class Visit>
void for_each_tile(const Tensor& query, const Tensor& base, bool self, int64_t block, const Visit& visit) {
  const int64_t height = block > 0 ? block : 512;
  const int64_t width = block > 0 ? block : std::clamp<int64_t>(512 * torch::stable::get_num_threads(), 1024, 8192);
  const int64_t rows = query.size(0), columns = base.size(0);
  const Tensor buffer = torch::stable::new_empty(query, {std::min(height, rows), std::min(width, columns)});
  const auto part = [](Tensor tensor, int64_t dim, int64_t start, int64_t length) {
    return torch::stable::narrow(tensor, dim, start, length);
  };
  for (int64_t row = 0; row < rows; row += height) {
    const int64_t tall = std::min(height, rows - row);
    const Tensor a = part(query, 0, row, tall);
    for (int64_t column = self ? row : 0; column < columns;) {
      const bool diagonal = self && column == row;
      const int64_t wide = diagonal ? tall : std::min(width, columns - column);
      Tensor out = part(part(buffer, 0, 0, tall), 1, 0, wide);
      multiply_transposed(a, part(base, 0, column, wide), out);
      visit(Tile{buffer.const_data_ptr<float>(), buffer.size(1), row, tall, column, wide}, self && !diagonal);
      column += wide;
    }
  }
}

}  // namespace ise_fast
