// The Jaccard distance (jaccard.cpp) between two blocks of rows of V', and the union-find of DBSCAN on edges at hand:
// what a process does with its rows while the rows of others go by.
#include <numeric>
#include <vector>

#include "../check_shards.h"
#include "../math/k_reciprocal.h"
#include "operator.h"
#include "shard_rows.h"

namespace ise_fast {
namespace {

// Rows of weights, checked: columns ascending, weights finite and >= 0, less than 2 in a row.
struct Weights {
  Tensor columns, values;
  std::vector<int64_t> offset;
  const int32_t* column;
  const float* value;

  Weights(const Tensor& indptr, const Tensor& indices, const Tensor& weights)
      : columns(row_major(indices)),
        values(row_major(weights)),
        offset(checked_offsets(row_major(indptr), columns.size(0))),
        column(columns.const_data_ptr<int32_t>()),
        value(values.const_data_ptr<float>()) {
    constexpr int64_t kColumns = std::numeric_limits<int32_t>::max();
    parallel_rows(rows(), [&](const auto& for_rows) {
      for_rows([&](int64_t i) {
        double sum = 0;
        for (int64_t p = offset[i], last = -1; p < offset[i + 1]; last = column[p++]) {
          check_csr_entry(column[p], last, value[p], kColumns, i);
          sum += value[p];
        }
        check_weight_sum(sum, i);
      });
    });
  }
  int64_t rows() const { return static_cast<int64_t>(offset.size()) - 1; }
};

// Weights by columns, rows ascending, in memory of its own. Zeros are left out: they add nothing.
class ByColumn {
public:
  explicit ByColumn(const Weights& v) {
    const int64_t nnz = v.offset.back();
    std::vector<std::pair<uint64_t, int32_t>> entries;  // (column, place), row
    entries.reserve(nnz);
    std::vector<float> weight(nnz);
    for (int64_t i = 0; i < v.rows(); ++i) {
      for (int64_t p = v.offset[i]; p < v.offset[i + 1]; ++p) {
        weight[p] = load_once(v.value + p);
        const auto f = static_cast<uint64_t>(static_cast<uint32_t>(load_once(v.column + p)));
        if (weight[p] > 0) entries.emplace_back(f << 32 | static_cast<uint64_t>(p), static_cast<int32_t>(i));
      }
      poll_interrupt();
    }
    check(nnz < (int64_t{1} << 32), "values: expected fewer than 2^32 entries in a block, got ", nnz);
    std::sort(entries.begin(), entries.end());
    row_.resize(entries.size());
    weight_.resize(entries.size());
    size_t names = 0;
    for (size_t e = 0; e < entries.size(); ++e) names += e == 0 || column_of(entries[e]) != column_of(entries[e - 1]);
    size_t room = 16;
    while (room < 2 * names) room *= 2;
    slots_.resize(room);
    for (size_t e = 0; e < entries.size(); ++e) {
      row_[e] = entries[e].second;
      weight_[e] = weight[static_cast<uint32_t>(entries[e].first)];
      Slot& slot = slots_[place(column_of(entries[e]))];
      if (slot.end == 0) slot = {column_of(entries[e]), static_cast<int64_t>(e), 0};
      slot.end = static_cast<int64_t>(e) + 1;
    }
  }

  // Calls visit(row, weight) for the rows that have column f, ascending.
  template <class Visit>
  void each(uint32_t f, const Visit& visit) const {
    const Slot& slot = slots_[place(f)];
    for (int64_t e = slot.begin; e < slot.end; ++e) visit(row_[e], weight_[e]);
  }

private:
  struct Slot {
    uint32_t column = 0;
    int64_t begin = 0, end = 0;  // end 0: free
  };

  static uint32_t column_of(const std::pair<uint64_t, int32_t>& entry) {
    return static_cast<uint32_t>(entry.first >> 32);
  }
  // The slot of column f, or the free one where it would be.
  size_t place(uint32_t f) const {
    const size_t mask = slots_.size() - 1;
    size_t at = f * uint64_t{0x9e3779b97f4a7c15} >> 32 & mask;
    while (slots_[at].end != 0 && slots_[at].column != f) at = (at + 1) & mask;
    return at;
  }

  std::vector<int32_t> row_;
  std::vector<float> weight_;
  std::vector<Slot> slots_;
};

// Rows of a against rows of b: every pair with distance <= eps. `same`: b is a; the diagonal is then stored whatever it
// is, as jaccard_graph does. s is summed over the columns of the row of a, ascending: the order of jaccard_graph.
CsrTensors jaccard_pairs(const Tensor& a_indptr, const Tensor& a_indices, const Tensor& a_values,
                         const Tensor& b_indptr, const Tensor& b_indices, const Tensor& b_values, bool same, double eps,
                         int64_t max_pairs) {
  check_jaccard_pairs(eps, max_pairs);
  check_weights(a_indptr, a_indices, a_values);
  check_weights(b_indptr, b_indices, b_values);
  check_same_device(b_indptr, "b_indptr", a_indptr, "a_indptr");
  const Weights a(a_indptr, a_indices, a_values), b(b_indptr, b_indices, b_values);
  check(!same || a.rows() == b.rows(), "same: expected as many rows in b as in a, ", a.rows(), ", got ", b.rows());
  check(b.rows() < (int64_t{1} << 31) - 1, "b_indptr: expected fewer than 2^31 - 1 rows, got ", b.rows());
  const ByColumn columns(b);
  const auto bound = static_cast<float>(eps);
  const float least = least_shared(bound);

  const auto make_row = [&] {
    return [&, shared = std::vector<float>(b.rows()), touched = std::vector<int32_t>(b.rows() + 1),
            near = std::vector<std::pair<int32_t, float>>()](int64_t i, RowSink& sink) mutable {
      size_t count = 0;
      for (int64_t p = a.offset[i]; p < a.offset[i + 1]; ++p) {
        const float weight = load_once(a.value + p);
        if (!(weight > 0)) continue;
        columns.each(static_cast<uint32_t>(load_once(a.column + p)), [&](int32_t j, float other) {
          touched[count] = j;  // kept only when j is new
          count += shared[j] == 0.0f;
          shared[j] += std::min(weight, other);
        });
      }
      near.clear();
      float self = 0.0f;
      for (size_t t = 0; t < count; ++t) {
        const int32_t j = touched[t];
        const float s = std::exchange(shared[j], 0.0f);
        if (same && j == i) self = s;
        if (s < least || (same && j == i)) continue;
        const float d = jaccard_from_shared(s);
        if (d <= bound) near.emplace_back(j, d);
      }
      if (same) near.emplace_back(static_cast<int32_t>(i), jaccard_from_shared(self));
      std::sort(near.begin(), near.end());
      for (const auto& [j, d] : near) {
        sink.indices.push_back(j);
        sink.values.push_back(d);
      }
    };
  };
  PairLimit limit{max_pairs, eps};
  return assemble_rows(new_tensor(a.columns, {0}, ScalarType::Long), a.values, 0, a.rows(), make_row, &limit);
}

// The root of i, halving the path to it.
int32_t find_root(std::vector<int32_t>& parent, int32_t i) {
  while (parent[i] != i) {
    parent[i] = parent[parent[i]];
    i = parent[i];
  }
  return i;
}

// Unites first[e] with second[e] for every e; the smallest member is the root, and in the end everybody's parent.
void unite_(Tensor parent, const Tensor& first, const Tensor& second) {
  check_unite(parent, first, second);
  const Tensor before = row_major(parent), one = row_major(first), two = row_major(second);
  const int64_t rows = before.size(0), edges = one.size(0);
  const auto* from = before.const_data_ptr<int32_t>();
  std::vector<int32_t> root(from, from + rows);
  for (int64_t i = 0; i < rows; ++i) {
    check(0 <= root[i] && root[i] <= i, "parent: expected 0 to ", i, " at ", i, ", got ", root[i]);
  }
  for (int64_t e = 0; e < edges; ++e) {
    const int32_t a = find_root(root, checked_row(one.const_data_ptr<int32_t>() + e, rows, "first", e));
    const int32_t b = find_root(root, checked_row(two.const_data_ptr<int32_t>() + e, rows, "second", e));
    root[std::max(a, b)] = std::min(a, b);
    if (e % 4096 == 0) poll_interrupt();
  }
  for (int64_t i = 0; i < rows; ++i) root[i] = root[root[i]];  // ascending: a parent is before its children
  const Uninterrupted writing;
  auto* out = parent.mutable_data_ptr<int32_t>();
  const int64_t stride = rows > 0 ? parent.stride(0) : 1;
  for (int64_t i = 0; i < rows; ++i) out[i * stride] = root[i];
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ise_fast, CPU, m) {
  m.impl("jaccard_pairs", OPERATOR(jaccard_pairs));
  m.impl("unite_", OPERATOR(unite_));
}

}  // namespace ise_fast
