#include "tree.h"

#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <tuple>

#include "../math/distance.h"
#include "changed.h"
#include "tensors.h"

namespace ise_fast {
namespace {

constexpr int64_t kLeaf = 32;     // rows of a leaf, at most
constexpr int64_t kFewFound = 8;  // to sort what a row found pays where it is less than an eighth of the candidates
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Squares of differences, padded by zeros to a power of two, added as fold_dot_lanes does.
template <size_t kWidth>
double fold(std::array<double, kWidth>& square) {
  for (size_t apart = kWidth / 2; apart > 0; apart /= 2) {
    for (size_t c = 0; c < apart; ++c) square[c] += square[c + apart];
  }
  return square[0];
}

template <size_t kWidth>
using Point = std::array<double, kWidth>;

template <size_t kWidth>
struct Box {
  Point<kWidth> low, high;

  // At most the distance of any two rows of the boxes; a point is a box.
  double distance(const Box& other) const {
    Point<kWidth> square;
    for (size_t c = 0; c < kWidth; ++c) {
      const double gap = std::max({0.0, other.low[c] - high[c], low[c] - other.high[c]});
      square[c] = gap * gap;
    }
    return fold<kWidth>(square);
  }
};

// out[r]: the distance of a point from row r of the columns.
template <size_t kWidth>
void point_distances(const Point<kWidth>& point, const std::array<const double*, kWidth>& column, int64_t rows,
                     double* out) {
  for (int64_t r = 0; r < rows; ++r) {
    Point<kWidth> square;
    for (size_t c = 0; c < kWidth; ++c) {
      const double difference = point[c] - column[c][r];
      square[c] = difference * difference;
    }
    out[r] = fold<kWidth>(square);
  }
}

template <size_t kWidth>
std::vector<Point<kWidth>> points(const FilterRows& side) {
  const int64_t n = side.original.size(0), d = side.original.size(1);
  std::vector<Point<kWidth>> result(n);
  const auto copy = [&](const auto* rows) {
    for (int64_t i = 0; i < n; ++i) {
      std::copy_n(rows + i * d, d, result[i].begin());
      const auto finite = [](double value) { return std::isfinite(value); };
      if (!std::all_of(result[i].begin(), result[i].end(), finite)) throw_changed("x");  // NaN has no order
    }
  };
  if (side.original.scalar_type() == ScalarType::Double) {
    copy(side.original.const_data_ptr<double>());
  } else {
    copy(side.original.const_data_ptr<float>());
  }
  return result;
}

template <size_t kWidth>
class Tree {
public:
  explicit Tree(const FilterRows& side) : order_(side.original.size(0)) {
    const std::vector<Point<kWidth>> rows = points<kWidth>(side);
    std::iota(order_.begin(), order_.end(), 0);
    nodes_.reserve(4 * order_.size() / kLeaf + 1);
    nodes_.push_back({0, static_cast<int64_t>(order_.size()), -1, {}});
    for (size_t node = 0; node < nodes_.size(); ++node) {
      poll_interrupt();
      split(node, rows);
    }
    for (size_t c = 0; c < kWidth; ++c) {
      column_[c].resize(order_.size());
      for (size_t p = 0; p < order_.size(); ++p) column_[c][p] = rows[order_[p]][c];
    }
  }

  struct Node {
    int64_t begin, end;  // positions
    int64_t child;       // the first of two, -1 in a leaf
    Box<kWidth> box;
  };

  const std::vector<Node>& nodes() const { return nodes_; }
  int32_t row(int64_t position) const { return order_[position]; }
  const std::vector<double>& column(size_t c) const { return column_[c]; }  // by position
  Box<kWidth> at(int64_t position) const {
    Box<kWidth> box;
    for (size_t c = 0; c < kWidth; ++c) box.low[c] = box.high[c] = column_[c][position];
    return box;
  }

  // visit(leaf) for the leaves at a distance of at most limit() from `box`, the nearer of two first.
  template <class Limit, class Visit>
  void leaves(const Box<kWidth>& box, const Limit& limit, const Visit& visit) const {
    std::vector<std::pair<double, int64_t>> stack{{nodes_[0].box.distance(box), 0}};
    while (!stack.empty()) {
      const auto [distance, index] = stack.back();
      stack.pop_back();
      if (distance > limit()) continue;
      const Node& node = nodes_[index];
      if (node.child < 0) {
        visit(node);
        continue;
      }
      std::pair<double, int64_t> one{nodes_[node.child].box.distance(box), node.child},
          other{nodes_[node.child + 1].box.distance(box), node.child + 1};
      if (one.first < other.first) std::swap(one, other);
      stack.push_back(one);
      stack.push_back(other);
    }
  }

  // out[r]: the distance of a point from the row at position begin + r of a leaf.
  void distances(const Point<kWidth>& point, const Node& leaf, double (&out)[kLeaf]) const {
    std::array<const double*, kWidth> column;
    for (size_t c = 0; c < kWidth; ++c) column[c] = column_[c].data() + leaf.begin;
    point_distances<kWidth>(point, column, leaf.end - leaf.begin, out);
  }

private:
  // Gives the node its box and, if it has too many rows, two children that halve the widest side.
  void split(size_t index, const std::vector<Point<kWidth>>& rows) {
    const int64_t begin = nodes_[index].begin, end = nodes_[index].end;
    Box<kWidth> box;
    box.low.fill(kInfinity);
    box.high.fill(-kInfinity);
    for (int64_t p = begin; p < end; ++p) {
      const Point<kWidth>& row = rows[order_[p]];
      for (size_t c = 0; c < kWidth; ++c) {
        box.low[c] = std::min(box.low[c], row[c]);
        box.high[c] = std::max(box.high[c], row[c]);
      }
    }
    nodes_[index].box = box;
    if (end - begin <= kLeaf) return;
    size_t widest = 0;
    for (size_t c = 1; c < kWidth; ++c) {
      if (box.high[c] - box.low[c] > box.high[widest] - box.low[widest]) widest = c;
    }
    const int64_t middle = begin + (end - begin) / 2;
    std::nth_element(order_.begin() + begin, order_.begin() + middle, order_.begin() + end,
                     [&](int32_t a, int32_t b) { return rows[a][widest] < rows[b][widest]; });
    nodes_[index].child = static_cast<int64_t>(nodes_.size());
    nodes_.push_back({begin, middle, -1, {}});
    nodes_.push_back({middle, end, -1, {}});
  }

  std::vector<int32_t> order_;                      // row at each position
  std::array<std::vector<double>, kWidth> column_;  // by position
  std::vector<Node> nodes_;
};

using Neighbour = std::pair<double, int32_t>;

// The k nearest of one point, sorted by (distance, index). Returns how many rows were compared.
template <size_t kWidth>
int64_t nearest(const Tree<kWidth>& tree, const Point<kWidth>& point, size_t k, std::vector<Neighbour>& heap) {
  heap.clear();
  int64_t compared = 0;
  const auto limit = [&] { return heap.size() < k ? kInfinity : heap.front().first; };
  tree.leaves({point, point}, limit, [&](const auto& leaf) {
    double distance[kLeaf];
    tree.distances(point, leaf, distance);
    compared += leaf.end - leaf.begin;
    for (int64_t r = 0; r < leaf.end - leaf.begin; ++r) {
      if (distance[r] > limit()) continue;
      const Neighbour neighbour{distance[r], tree.row(leaf.begin + r)};
      if (heap.size() == k) {
        if (!(neighbour < heap.front())) continue;
        std::pop_heap(heap.begin(), heap.end());
        heap.pop_back();
      }
      heap.push_back(neighbour);
      std::push_heap(heap.begin(), heap.end());
    }
  });
  std::sort_heap(heap.begin(), heap.end());
  return compared;
}

// The rows within a bound of a row, by ascending number, with their distances.
template <size_t kWidth>
class RowsNear {
public:
  using Leaves = std::vector<const typename Tree<kWidth>::Node*>;

  RowsNear(const Tree<kWidth>& tree, double bound) : tree_(tree), bound_(bound) {}

  // How many rows of these leaves are within the bound of the one at position p.
  int64_t count(int64_t p, const Leaves& leaves) {
    int64_t found = 0;
    visit(p, leaves, [&](int64_t, double distance) { found += distance <= bound_; });
    return found;
  }

  // Finds them, and sorts what was found.
  void search(int64_t p, const Leaves& leaves) {
    unordered_.clear();
    visit(p, leaves, [&](int64_t position, double distance) {
      if (distance <= bound_) unordered_.push_back({tree_.row(position), distance});
    });
    std::sort(unordered_.begin(), unordered_.end());
    resize(unordered_.size());
    for (size_t r = 0; r < unordered_.size(); ++r) std::tie(row_[r], distance_[r]) = unordered_[r];
    found_ = unordered_.size();
  }

  // Sorts the rows of these leaves, for `compare`.
  void gather(const Leaves& leaves) {
    candidates_.clear();
    for (const auto* leaf : leaves) {
      for (int64_t p = leaf->begin; p < leaf->end; ++p) {
        candidates_.push_back(static_cast<uint64_t>(tree_.row(p)) << 32 | static_cast<uint64_t>(p));
      }
    }
    std::sort(candidates_.begin(), candidates_.end());
    for (size_t c = 0; c < kWidth; ++c) {
      column_[c].resize(candidates_.size());
      for (size_t r = 0; r < candidates_.size(); ++r) {
        column_[c][r] = tree_.column(c)[static_cast<uint32_t>(candidates_[r])];
      }
    }
    resize(candidates_.size());
  }

  // Finds them among the rows that were gathered.
  void compare(int64_t p) {
    std::array<const double*, kWidth> column;
    for (size_t c = 0; c < kWidth; ++c) column[c] = column_[c].data();
    point_distances<kWidth>(tree_.at(p).low, column, static_cast<int64_t>(candidates_.size()), distance_.data());
    found_ = 0;
    for (size_t r = 0; r < candidates_.size(); ++r) {
      row_[found_] = static_cast<int32_t>(candidates_[r] >> 32);
      distance_[found_] = distance_[r];
      found_ += distance_[found_] <= bound_;
    }
  }

  // What was found last.
  void write(Metric metric, int32_t* index, float* value) const {
    std::copy_n(row_.begin(), found_, index);
    for (size_t r = 0; r < found_; ++r) value[r] = returned_distance(distance_[r], metric);
  }

private:
  void resize(size_t most) {
    row_.resize(most);
    distance_.resize(most);
  }

  template <class Visit>
  void visit(int64_t p, const Leaves& leaves, const Visit& visit) const {
    const Box<kWidth> point = tree_.at(p);
    for (const auto* leaf : leaves) {
      if (leaf->box.distance(point) > bound_) continue;
      double distance[kLeaf];
      tree_.distances(point.low, *leaf, distance);
      for (int64_t r = 0; r < leaf->end - leaf->begin; ++r) visit(leaf->begin + r, distance[r]);
    }
  }

  const Tree<kWidth>& tree_;
  const double bound_;
  std::vector<uint64_t> candidates_;                   // row << 32 | position, ascending
  std::array<std::vector<double>, kWidth> column_;     // of the candidates
  std::vector<std::pair<int32_t, double>> unordered_;  // row and distance
  std::vector<int32_t> row_;                           // of what was found, ascending, as many as found_
  std::vector<double> distance_;
  size_t found_ = 0;
};

// run(tree, body) with a tree of as many columns as the rows have, rounded up to a power of two.
template <class Body>
auto with_width(int64_t d, const Body& body) {
  if (d <= 1) return body(std::integral_constant<size_t, 1>{});
  if (d <= 2) return body(std::integral_constant<size_t, 2>{});
  if (d <= 4) return body(std::integral_constant<size_t, 4>{});
  if (d <= 8) return body(std::integral_constant<size_t, 8>{});
  return body(std::integral_constant<size_t, 16>{});
}

// Rows that a query is compared with and, within a radius, those it finds; sums over some queries.
struct Met {
  int64_t queries = 0, compared = 0, found = 0;
};

template <size_t kWidth>
Met rows_met(const PairFilter& filter, Search search) {
  constexpr int64_t kQueries = 64;
  const Tree<kWidth> tree(filter.base());
  const std::vector<Point<kWidth>> rows = points<kWidth>(filter.query());
  const auto queries = static_cast<int64_t>(rows.size());
  Met met{std::min(kQueries, queries)};
  std::vector<Neighbour> neighbours;
  for (int64_t s = 0; s < met.queries; ++s) {
    const Point<kWidth>& point = rows[s * queries / met.queries];
    if (search.k > 0) {
      met.compared += nearest(tree, point, search.k, neighbours);
      continue;
    }
    tree.leaves(
        {point, point}, [&] { return search.bound; },
        [&](const auto& leaf) {
          double distance[kLeaf];
          tree.distances(point, leaf, distance);
          met.compared += leaf.end - leaf.begin;
          met.found += std::count_if(distance, distance + (leaf.end - leaf.begin),
                                     [&](double value) { return value <= search.bound; });
        });
  }
  return met;
}

}  // namespace

bool tree_pays(const PairFilter& filter, Search search, Metric metric, int64_t width) {
  // In distances of the tree, each with its share of nodes: a score of the filter, both ways, and, over the columns of
  // a distance and 4 more, a pair within the radius, which the filter compares again, sorts and copies.
  constexpr double kPair = 0.03, kFound = 24;
  constexpr int64_t kLeastRows = 256;
  const int64_t n = filter.base().original.size(0), d = filter.base().original.size(1);
  if (metric == Metric::kCosine || d > kTreeColumns || filter.query().original.size(0) == 0) return false;
  if (width != 0 || n == 0) return width == -2 && n > 0;
  if (n < kLeastRows) return false;
  const Met met = with_width(d, [&](auto columns) { return rows_met<decltype(columns)::value>(filter, search); });
  const double scores = static_cast<double>(met.queries * n) * (filter.self() ? 1 : 2);
  return static_cast<double>(met.compared) <
         kPair * scores + kFound / static_cast<double>(d + 4) * static_cast<double>(met.found);
}

void tree_nearest(const PairFilter& filter, int64_t k, Metric metric, float* distances, int64_t* neighbours) {
  with_width(filter.base().original.size(1), [&](auto columns) {
    constexpr size_t kWidth = decltype(columns)::value;
    const Tree<kWidth> tree(filter.base());
    const std::vector<Point<kWidth>> rows = points<kWidth>(filter.query());
    const auto queries = static_cast<int64_t>(rows.size());
    parallel_rows(queries, [&](const auto& for_rows) {
      std::vector<Neighbour> found;
      for_rows([&](int64_t position) {
        // Rows of one leaf one after the other: they look at the same leaves.
        const int64_t i = filter.self() ? tree.row(position) : position;
        nearest(tree, rows[i], k, found);
        for (int64_t r = 0; r < k; ++r) {
          distances[i * k + r] = returned_distance(found[r].first, metric);
          neighbours[i * k + r] = found[r].second;
        }
      });
    });
  });
}

std::tuple<Tensor, Tensor, Tensor> tree_graph(const PairFilter& filter, double bound, Metric metric) {
  const Tensor& rows = filter.base().rows;
  const int64_t n = rows.size(0);
  Tensor indptr = new_tensor(rows, {n + 1}, ScalarType::Long);
  auto* offset = indptr.mutable_data_ptr<int64_t>();
  offset[0] = 0;
  Tensor indices, values;
  with_width(filter.base().original.size(1), [&](auto columns) {
    constexpr size_t kWidth = decltype(columns)::value;
    using Node = typename Tree<kWidth>::Node;
    const Tree<kWidth> tree(filter.base());
    std::vector<const Node*> leaves;
    for (const Node& node : tree.nodes()) {
      if (node.child < 0) leaves.push_back(&node);
    }
    // visit(leaf, near): every leaf, and the leaves that are within `bound` of it.
    const auto for_leaves = [&](const auto& visit) {
      parallel_blocks(static_cast<int64_t>(leaves.size()), [&](Blocks& next) {
        std::vector<const Node*> near;
        RowsNear<kWidth> found(tree, bound);
        for (int64_t b = next(); b < static_cast<int64_t>(leaves.size()); b = next()) {
          near.clear();
          tree.leaves(leaves[b]->box, [&] { return bound; }, [&](const Node& leaf) { near.push_back(&leaf); });
          visit(found, *leaves[b], near);
        }
      });
    };
    for_leaves([&](RowsNear<kWidth>& found, const Node& leaf, const std::vector<const Node*>& near) {
      for (int64_t p = leaf.begin; p < leaf.end; ++p) offset[tree.row(p) + 1] = found.count(p, near);
    });
    for (int64_t i = 0; i < n; ++i) offset[i + 1] += offset[i];
    indices = new_tensor(rows, {offset[n]}, ScalarType::Int);
    values = new_tensor(rows, {offset[n]});
    auto* out_index = indices.mutable_data_ptr<int32_t>();
    auto* out_value = values.mutable_data_ptr<float>();
    for_leaves([&](RowsNear<kWidth>& found, const Node& leaf, const std::vector<const Node*>& near) {
      int64_t pairs = 0, candidates = 0;
      for (int64_t p = leaf.begin; p < leaf.end; ++p) pairs += offset[tree.row(p) + 1] - offset[tree.row(p)];
      for (const Node* other : near) candidates += other->end - other->begin;
      // Where many of the candidates are found they are sorted once for all rows of the leaf, else what each row finds.
      const bool together = pairs * kFewFound >= candidates * (leaf.end - leaf.begin);
      if (together) found.gather(near);
      for (int64_t p = leaf.begin; p < leaf.end; ++p) {
        together ? found.compare(p) : found.search(p, near);
        found.write(metric, out_index + offset[tree.row(p)], out_value + offset[tree.row(p)]);
      }
    });
  });
  return {indptr, indices, values};
}

}  // namespace ise_fast
