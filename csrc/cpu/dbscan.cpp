// DBSCAN (Ester et al. 1996) on a distance graph, with the labels of scikit-learn on any graph, symmetric or not.
//
// What costs time is reading the distances, so that part runs on all threads: it checks them, counts neighbours and,
// for a dense matrix, leaves one bit per pair. The search itself follows each core row once: memory-bound and
// sequential.
#include <bit>
#include <tuple>
#include <vector>

#include "csr.h"
#include "operator.h"

namespace ise_fast {
namespace {

struct Result {
  Tensor labels;
  Tensor core_mask;
  int64_t* label;
  bool* core;

  Result(const Tensor& like, int64_t rows)
      : labels(new_tensor(like, {rows}, ScalarType::Long)),
        core_mask(new_tensor(like, {rows}, ScalarType::Bool)),
        label(labels.mutable_data_ptr<int64_t>()),
        core(core_mask.mutable_data_ptr<bool>()) {
    std::fill(label, label + rows, -1);
  }
};

// Clusters in the order of their lowest core index: everything not yet labelled that the core points reach.
// claim(i, push) gives every unlabelled neighbour of i to push, which labels it.
template <class Claim>
void search(Result& result, int64_t rows, const Claim& claim) {
  std::vector<int64_t> stack;
  int64_t clusters = 0;
  for (int64_t start = 0; start < rows; ++start) {
    if (!result.core[start] || result.label[start] >= 0) continue;
    const auto push = [&](int64_t j) {
      result.label[j] = clusters;
      if (result.core[j]) stack.push_back(j);
    };
    push(start);
    while (!stack.empty()) {
      poll_interrupt();
      const int64_t i = stack.back();
      stack.pop_back();
      claim(i, push);
    }
    ++clusters;
  }
}

template <class Index, class Value>
Result dbscan_csr(const Tensor& indptr, const Tensor& indices, const Tensor& values, double eps, int64_t min_samples) {
  const auto graph = checked_csr<Index, Value>(indptr, indices, values);
  const auto bound = static_cast<Value>(eps);
  Result result(indptr, graph.rows);
  parallel_rows(graph.rows, [&](const auto& for_rows) {
    for_rows([&](int64_t i) {
      int64_t count = 0;
      for (int64_t p = graph.indptr[i]; p < graph.indptr[i + 1]; ++p) count += graph.values[p] <= bound;
      count += graph.find(i, static_cast<Index>(i)) < 0;  // a diagonal that is not stored counts as self
      result.core[i] = count >= min_samples;
    });
  });
  search(result, graph.rows, [&](int64_t i, const auto& push) {
    for (int64_t p = graph.indptr[i]; p < graph.indptr[i + 1]; ++p) {
      const int64_t j = graph.column(p);
      if (graph.values[p] <= bound && result.label[j] < 0) push(j);
    }
  });
  return result;
}

std::tuple<Tensor, Tensor> dbscan(const Tensor& indptr, const Tensor& indices, const Tensor& values, double eps,
                                  int64_t min_samples) {
  check_dbscan(indptr, indices, values, eps, min_samples);
  const Tensor offsets = row_major(indptr), cols = row_major(indices), distances = row_major(values);
  const bool narrow = cols.scalar_type() == ScalarType::Int, single = distances.scalar_type() == ScalarType::Float;
  const auto run = narrow   ? single ? dbscan_csr<int32_t, float> : dbscan_csr<int32_t, double>
                   : single ? dbscan_csr<int64_t, float>
                            : dbscan_csr<int64_t, double>;
  const Result result = run(offsets, cols, distances, eps, min_samples);
  return {result.labels, result.core_mask};
}

// One bit per pair: within eps.
class Bits {
public:
  explicit Bits(int64_t columns) : words_per_row_((columns + 63) / 64) {}
  void allocate(int64_t rows) { words_.resize(rows * words_per_row_); }
  uint64_t* row(int64_t i) { return words_.data() + i * words_per_row_; }
  int64_t words_per_row() const { return words_per_row_; }

private:
  int64_t words_per_row_;
  std::vector<uint64_t> words_;
};

// Writes the bits of one row of distances and counts them; false if a distance is not finite and at least 0.
template <class Value>
bool threshold_row(const Value* distance, int64_t columns, Value bound, uint64_t* words, int64_t& count) {
  bool good = true;
  count = 0;
  for (int64_t first = 0; first < columns; first += 64) {
    const int64_t width = std::min<int64_t>(64, columns - first);
    uint64_t word = 0;
    for (int64_t b = 0; b < width; ++b) {
      const Value d = distance[first + b];
      good &= d >= 0 && d <= std::numeric_limits<Value>::max();
      word |= static_cast<uint64_t>(d <= bound) << b;
    }
    words[first / 64] = word;
    count += std::popcount(word);
  }
  return good;
}

template <class Value>
Result dbscan_matrix(const Tensor& distance, double eps, int64_t min_samples) {
  const int64_t rows = distance.size(0);
  const auto* value = distance.const_data_ptr<Value>();
  const auto bound = static_cast<Value>(eps);
  Result result(distance, rows);
  Bits near(rows);
  near.allocate(rows);
  std::atomic<bool> good{true};
  parallel_rows(rows, [&](const auto& for_rows) {
    for_rows([&](int64_t i) {
      int64_t count = 0;
      if (!threshold_row(value + i * rows, rows, bound, near.row(i), count)) good = false;
      result.core[i] = count >= min_samples;
    });
  });
  for (int64_t p = 0; !good && p < rows * rows; ++p) {
    check_dense_distance(value[p], p, rows);
  }

  Bits open(rows);  // not yet labelled: one row of bits
  open.allocate(1);
  for (int64_t i = 0; i < rows; ++i) open.row(0)[i / 64] |= uint64_t{1} << i % 64;
  search(result, rows, [&](int64_t i, const auto& push) {
    open.row(0)[i / 64] &= ~(uint64_t{1} << i % 64);
    for (int64_t w = 0; w < near.words_per_row(); ++w) {
      uint64_t found = near.row(i)[w] & open.row(0)[w];
      open.row(0)[w] &= ~found;
      for (; found; found &= found - 1) push(w * 64 + std::countr_zero(found));
    }
  });
  return result;
}

std::tuple<Tensor, Tensor> dbscan_dense(const Tensor& graph, double eps, int64_t min_samples) {
  check_dbscan_dense(graph, eps, min_samples);
  const Tensor d = row_major(graph);
  const auto run = d.scalar_type() == ScalarType::Float ? dbscan_matrix<float> : dbscan_matrix<double>;
  const Result result = run(d, eps, min_samples);
  return {result.labels, result.core_mask};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ise_fast, CPU, m) {
  m.impl("dbscan", OPERATOR(dbscan));
  m.impl("dbscan_dense", OPERATOR(dbscan_dense));
}

}  // namespace ise_fast
