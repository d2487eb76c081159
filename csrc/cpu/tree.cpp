#include "tree.h"

#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "../math/distance.h"
#include "changed.h"
#include "tensors.h"

namespace ise_fast {
namespace {

constexpr int64_t kLeaf = 32;  // rows of a leaf, at most
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
    for (int64_t r = 0; r < leaf.end - leaf.begin; ++r) {
      Point<kWidth> square;
      for (size_t c = 0; c < kWidth; ++c) {
        const double difference = point[c] - column_[c][leaf.begin + r];
        square[c] = difference * difference;
      }
      out[r] = fold<kWidth>(square);
    }
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

// run(tree, body) with a tree of as many columns as the rows have, rounded up to a power of two.
template <class Body>
auto with_width(int64_t d, const Body& body) {
  if (d <= 1) return body(std::integral_constant<size_t, 1>{});
  if (d <= 2) return body(std::integral_constant<size_t, 2>{});
  if (d <= 4) return body(std::integral_constant<size_t, 4>{});
  if (d <= 8) return body(std::integral_constant<size_t, 8>{});
  return body(std::integral_constant<size_t, 16>{});
}

// Rows that a query is compared with, in the mean over some queries.
template <size_t kWidth>
double rows_compared(const PairFilter& filter, Search search) {
  constexpr int64_t kQueries = 64;
  const Tree<kWidth> tree(filter.base());
  const std::vector<Point<kWidth>> rows = points<kWidth>(filter.query());
  const auto queries = static_cast<int64_t>(rows.size());
  const int64_t sample = std::min(kQueries, queries);
  std::vector<Neighbour> found;
  int64_t compared = 0;
  for (int64_t s = 0; s < sample; ++s) {
    const Point<kWidth>& point = rows[s * queries / sample];
    if (search.k > 0) {
      compared += nearest(tree, point, search.k, found);
    } else {
      tree.leaves(
          {point, point}, [&] { return search.bound; }, [&](const auto& leaf) { compared += leaf.end - leaf.begin; });
    }
  }
  return static_cast<double>(compared) / static_cast<double>(sample);
}

}  // namespace

bool tree_pays(const PairFilter& filter, Search search, Metric metric, int64_t width) {
  constexpr double kPair =
      0.03;  // a score of the filter, both ways, over a distance of the tree and its share of nodes
  constexpr int64_t kLeastRows = 256;
  const int64_t n = filter.base().original.size(0), d = filter.base().original.size(1);
  if (metric == Metric::kCosine || d > kTreeColumns || filter.query().original.size(0) == 0) return false;
  if (width != 0 || n == 0) return width == -2 && n > 0;
  if (n < kLeastRows) return false;
  const double compared =
      with_width(d, [&](auto columns) { return rows_compared<decltype(columns)::value>(filter, search); });
  return compared < kPair * static_cast<double>(n) * (filter.self() ? 1 : 2);
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
    const Tree<kWidth> tree(filter.base());
    std::vector<int64_t> leaf_nodes;
    for (size_t node = 0; node < tree.nodes().size(); ++node) {
      if (tree.nodes()[node].child < 0) leaf_nodes.push_back(static_cast<int64_t>(node));
    }
    // found(i, entries) for every row, in no order; an entry is index << 32 | bits of the distance.
    const auto search = [&](const auto& found) {
      parallel_blocks(static_cast<int64_t>(leaf_nodes.size()), [&](Blocks& next) {
        std::vector<int64_t> near;
        std::vector<uint64_t> entries;
        for (int64_t b = next(); b < static_cast<int64_t>(leaf_nodes.size()); b = next()) {
          const auto& mine = tree.nodes()[leaf_nodes[b]];
          near.clear();
          tree.leaves(
              mine.box, [&] { return bound; }, [&](const auto& leaf) { near.push_back(&leaf - tree.nodes().data()); });
          for (int64_t p = mine.begin; p < mine.end; ++p) {
            const Box<kWidth> point = tree.at(p);
            entries.clear();
            for (const int64_t other : near) {
              const auto& leaf = tree.nodes()[other];
              if (leaf.box.distance(point) > bound) continue;
              double distance[kLeaf];
              tree.distances(point.low, leaf, distance);
              for (int64_t r = 0; r < leaf.end - leaf.begin; ++r) {
                if (!(distance[r] <= bound)) continue;
                const float value = returned_distance(distance[r], metric);
                uint32_t bits;
                std::memcpy(&bits, &value, sizeof bits);
                entries.push_back(static_cast<uint64_t>(tree.row(leaf.begin + r)) << 32 | bits);
              }
            }
            found(tree.row(p), entries);
          }
        }
      });
    };
    search(
        [&](int64_t i, const std::vector<uint64_t>& entries) { offset[i + 1] = static_cast<int64_t>(entries.size()); });
    for (int64_t i = 0; i < n; ++i) offset[i + 1] += offset[i];
    indices = new_tensor(rows, {offset[n]}, ScalarType::Int);
    values = new_tensor(rows, {offset[n]});
    auto* out_index = indices.mutable_data_ptr<int32_t>();
    auto* out_value = values.mutable_data_ptr<float>();
    search([&](int64_t i, std::vector<uint64_t>& entries) {
      std::sort(entries.begin(), entries.end());
      for (size_t e = 0; e < entries.size(); ++e) {
        const auto bits = static_cast<uint32_t>(entries[e]);
        out_index[offset[i] + static_cast<int64_t>(e)] = static_cast<int32_t>(entries[e] >> 32);
        std::memcpy(&out_value[offset[i] + static_cast<int64_t>(e)], &bits, sizeof bits);
      }
    });
  });
  return {indptr, indices, values};
}

}  // namespace ise_fast
