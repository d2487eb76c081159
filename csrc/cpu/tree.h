// A k-d tree for few columns, where whole regions can be left out: the alternative to the filter by products.
//
// Distances have the bits of math/distance.h, and the bound of a box is computed by the same operations in the same
// order from smaller differences: since rounding is monotone it never exceeds the computed distance of a row inside.
// So nothing is rounded away from the answer, and there is no margin.
#pragma once

#include <tuple>

#include "cascade.h"

namespace ise_fast {

inline constexpr int64_t kTreeColumns = 16;  // at most

// Whether a tree is predicted to beat the products; `width` (see choose_cascade): -2 asks for the tree, other numbers
// than 0 for something else. Only for the Euclidean metrics and up to kTreeColumns columns.
bool tree_pays(const PairFilter& filter, Search search, Metric metric, int64_t width);

// The k nearest base rows of every query, by (distance, index): `neighbours` and `distances` are [queries, k].
void tree_nearest(const PairFilter& filter, int64_t k, Metric metric, float* distances, int64_t* neighbours);

// The pairs within a compared distance of `bound`: (indptr, indices, distances).
std::tuple<Tensor, Tensor, Tensor> tree_graph(const PairFilter& filter, double bound, Metric metric);

}  // namespace ise_fast
