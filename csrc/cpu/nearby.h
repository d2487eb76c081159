// An order of rows that keeps those which read the same memory close in time.
#pragma once

#include <cstdint>
#include <vector>

namespace ise_fast {

// Every row in [0, rows) once, each followed by its neighbours that have not had their turn: neighbours of neighbours
// are mostly the same rows, and are then still in the cache. neighbours(i, visit) calls visit(j) for the rows j that
// row i reads. Results must be stored by row: the order is for speed only.
template <class Neighbours>
std::vector<int32_t> nearby_order(int64_t rows, const Neighbours& neighbours) {
  std::vector<int32_t> order;
  order.reserve(rows);
  std::vector<bool> seen(rows);
  const auto visit = [&](int32_t j) {
    if (!seen[j]) order.push_back(j);
    seen[j] = true;
  };
  for (int32_t i = 0; i < rows; ++i) {
    if (seen[i]) continue;
    visit(i);
    neighbours(i, visit);
  }
  return order;
}

}  // namespace ise_fast
