// Principal axes of rows, from a sample: where a few columns hold most of what tells the rows apart.
#pragma once

#include <cstdint>
#include <vector>

namespace ise_fast {

// Whatever the axes are, nothing exact rests on them: `skew` is measured, and whoever rotates by them puts it into his
// margin.
struct Axes {
  std::vector<float> q;  // [d, width]: nearly orthonormal columns, the one with the most energy first
  int64_t d = 0, width = 0;
  double skew = 0;  // Frobenius norm of Q^T Q - 1, which bounds its largest eigenvalue
};

// A randomised range finder with one power iteration (Halko, Martinsson, Tropp 2011) over `samples` evenly spaced rows
// [n, d]: of fixed cost, and without chance. width <= d.
Axes principal_axes(const float* rows, int64_t n, int64_t d, int64_t samples, int64_t width);

}  // namespace ise_fast
