// Bounds of the distances between rows and centres from a few principal axes of the rows (prefix_rows.h), for Lloyd's
// iterations: the rows are rotated once, the centres whenever they move.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "prefix_rows.h"

namespace ise_fast {

// float32 rows with their lengths.
struct MeasuredRows {
  Matrix<const float> rows;
  const double* length;
};

class CentrePrefixes {
public:
  // Null where axes are not predicted to pay, by a sample of x [n, d] against the first centres [k, d].
  static std::unique_ptr<CentrePrefixes> choose(MeasuredRows x, MeasuredRows centres);

  // For centres no longer than the longest row or first centre.
  void move(MeasuredRows centres);

  // out: [rows, k] of rows [begin, begin + rows): their inner products with the centres are at most that plus slack().
  void products(int64_t begin, int64_t rows, float* out) const;
  double slack() const { return static_cast<double>(axes_.d) * 0x1p-80; }  // flushed denormals
  int64_t columns() const { return width_ + 1; }                           // of these products

private:
  CentrePrefixes(const Axes& axes, int64_t width, MeasuredRows x);
  std::vector<float> rotated(MeasuredRows of) const;

  Axes axes_;
  int64_t width_;
  double e_;                         // E of prefix_rows.h
  std::vector<float> row_, centre_;  // [n or k, 1 + width]: the rest, then the prefix
};

}  // namespace ise_fast
