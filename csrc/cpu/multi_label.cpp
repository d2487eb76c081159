// Multi-labels by cycle consistency and their loss (MMCL: Wang & Zhang, CVPR 2020). Nothing is sorted that need not be:
// the rows beyond the threshold are a count, and the place of a row in another's list is a count as well, of the rows
// that are more similar, settled by approximate products wherever these are certain.
#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "../check_methods.h"
#include "changed.h"
#include "head.h"
#include "largest.h"
#include "operator.h"
#include "scaled.h"

namespace ise_fast {
namespace {

template <class T>
double longest_row(const T* rows, int64_t count, int64_t d, const char* name) {
  const std::vector<double> lengths = row_lengths(rows, count, d, name);
  return lengths.empty() ? 0 : *std::max_element(lengths.begin(), lengths.end());
}

// One image whose positives are looked for.
template <class T>
struct CycleSearch {
  int64_t row;                           // of the table
  int64_t similar = 0;                   // a, how many rows are beyond the threshold
  int64_t passed = 0;                    // candidates whose lists hold c_0 early enough, from the first
  bool open = true;                      // whether the next candidate is to be asked
  std::vector<Candidate<T>> candidates;  // c_0, c_1, ..., as many as were asked for, at most a
};

template <class T>
class Cycles {
public:
  Cycles(const Tensor& table, double threshold, int64_t least)
      : table_(row_major(table)),
        row_(table_.const_data_ptr<T>()),
        n_(table.size(0)),
        d_(table.size(1)),
        threshold_(threshold),
        least_(least) {
    length_ = row_lengths(row_, n_, d_, "table");
    for (const double l : length_) longest_ = std::max(longest_, l);
    check_products<T>(length_, longest_, "each other", "table");
    error_.emplace(d_, longest_);
  }

  void run(std::vector<CycleSearch<T>>& searches) {
    // A chain rarely gets far: lists grow when it does.
    for (int64_t wanted = 32;; wanted *= 4) {
      std::vector<CycleSearch<T>*> open;
      for (CycleSearch<T>& search : searches) {
        if (search.open) open.push_back(&search);
      }
      if (open.empty()) return;
      if (wanted > 32 && wanted / 4 >= n_) throw_changed("table");  // all rows were asked for: a chain is at its end
      find_candidates(open, wanted);
      while (ask_next(open)) {
      }
    }
  }

private:
  double error(int64_t row) const { return error_->operator()(length_[row]); }
  T exact(int64_t a, int64_t b) const { return static_cast<T>(inner_product(row_ + a * d_, row_ + b * d_, d_)) + T{0}; }

  // body(i, products, first column, columns) of the given table rows with all.
  template <class Body>
  void products(const std::vector<int64_t>& rows, const Body& body) const {
    const auto count = static_cast<int64_t>(rows.size());
    std::vector<T> gathered(count * d_);
    for (int64_t i = 0; i < count; ++i) std::copy_n(row_ + rows[i] * d_, d_, gathered.data() + i * d_);
    for_tiles<T>({gathered.data(), count, d_, d_}, {row_, n_, d_, d_}, body);
  }

  void find_candidates(std::vector<CycleSearch<T>*>& open, int64_t wanted) {
    std::vector<int64_t> rows;
    std::vector<LargestOfRow<T>> largest;
    for (CycleSearch<T>* search : open) {
      rows.push_back(search->row);
      largest.emplace_back(std::min(wanted, n_), error(search->row));
      search->similar = 0;
    }
    products(rows, [&](int64_t i, const T* similarity, int64_t from, int64_t columns) {
      largest[i].offer(similarity, from, columns);
      const double high = threshold_ + error(rows[i]), low = threshold_ - error(rows[i]);
      for (int64_t c = 0; c < columns; ++c) {
        if (similarity[c] <= low) continue;
        open[i]->similar += similarity[c] > high || exact(rows[i], from + c) > threshold_;
      }
    });
    parallel_for(0, static_cast<int64_t>(open.size()), 1, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        CycleSearch<T>& search = *open[i];
        search.candidates = largest[i].finish(row_ + search.row * d_, row_, d_);
        if (static_cast<int64_t>(search.candidates.size()) > search.similar) search.candidates.resize(search.similar);
      }
    });
  }

  // Asks every open search's next candidate for the place of c_0 in its list. False if none is open or all need longer
  // lists.
  bool ask_next(std::vector<CycleSearch<T>*>& open) {
    std::vector<CycleSearch<T>*> asked;
    std::vector<int64_t> rows;
    for (CycleSearch<T>* search : open) {
      // Two positives at least are taken, and never more than a: beyond that the answer does not depend on the chain.
      if (search->similar <= 2 || search->passed >= search->similar) search->open = false;
      if (!search->open || search->passed >= static_cast<int64_t>(search->candidates.size())) continue;
      // c_0 is the first of its own list if it is the image itself.
      if (search->passed == 0 && search->candidates[0].index == search->row) search->passed = 1;
      asked.push_back(search);
      rows.push_back(search->candidates[search->passed].index);
    }
    if (asked.empty()) return false;
    std::vector<int64_t> before(asked.size(), 0);
    std::vector<T> similarity(asked.size());
    for (size_t i = 0; i < asked.size(); ++i) similarity[i] = exact(rows[i], asked[i]->candidates[0].index);
    products(rows, [&](int64_t i, const T* product, int64_t from, int64_t columns) {
      const int64_t first = asked[i]->candidates[0].index, most = std::max(asked[i]->similar, least_);
      if (before[i] > most) return;
      const double off = error(rows[i]), high = similarity[i] + off, low = similarity[i] - off;
      for (int64_t c = 0; c < columns; ++c) {
        if (product[c] < low) continue;
        if (product[c] > high) {
          ++before[i];
        } else {
          const T value = exact(rows[i], from + c);
          before[i] += value > similarity[i] || (value == similarity[i] && from + c < first);
        }
      }
    });
    for (size_t i = 0; i < asked.size(); ++i) {
      if (before[i] > std::max(asked[i]->similar, least_)) {
        asked[i]->open = false;
      } else {
        ++asked[i]->passed;
      }
    }
    return true;
  }

  const Tensor table_;
  const T* const row_;
  const int64_t n_, d_;
  const double threshold_;
  const int64_t least_;
  std::vector<double> length_;
  double longest_ = 0;
  std::optional<ProductError<T>> error_;  // asks the library: once
};

template <class T>
std::tuple<Tensor, Tensor, Tensor> cycles(const Tensor& table, const Tensor& rows, double threshold, int64_t least) {
  const Tensor v = row_major(table);
  const int64_t count = rows.numel(), d = v.size(1);
  const std::vector<int64_t> index = checked_labels(rows, v.size(0), "rows");
  std::vector<CycleSearch<T>> searches(count);
  for (int64_t i = 0; i < count; ++i) searches[i].row = index[i];
  Cycles<T>(v, threshold, least).run(searches);

  Tensor indptr = new_tensor(rows, {count + 1});
  auto* offset = indptr.mutable_data_ptr<int64_t>();
  std::vector<std::vector<int64_t>> chosen(count);
  offset[0] = 0;
  for (int64_t i = 0; i < count; ++i) {
    const CycleSearch<T>& search = searches[i];
    const int64_t q = search.passed - 1, n = std::min(std::max<int64_t>(1, q) + 1, search.similar);
    if (n > static_cast<int64_t>(search.candidates.size())) throw_changed("table");
    for (int64_t j = 0; j < n; ++j) chosen[i].push_back(search.candidates[j].index);
    chosen[i].push_back(search.row);
    std::sort(chosen[i].begin(), chosen[i].end());
    chosen[i].erase(std::unique(chosen[i].begin(), chosen[i].end()), chosen[i].end());
    offset[i + 1] = offset[i] + static_cast<int64_t>(chosen[i].size());
  }
  Tensor indices = new_tensor(rows, {offset[count]}, ScalarType::Int);
  Tensor values = new_tensor(rows, {offset[count]}, ScalarType::Float);
  const T* const data = v.const_data_ptr<T>();
  for (int64_t i = 0; i < count; ++i) {
    for (size_t j = 0; j < chosen[i].size(); ++j) {
      indices.mutable_data_ptr<int32_t>()[offset[i] + j] = static_cast<int32_t>(chosen[i][j]);
      values.mutable_data_ptr<float>()[offset[i] + j] =
          static_cast<float>(inner_product(data + index[i] * d, data + chosen[i][j] * d, d)) + 0.0f;
    }
  }
  return {indptr, indices, values};
}

std::tuple<Tensor, Tensor, Tensor> cycle_positives(const Tensor& table, const Tensor& rows, double threshold,
                                                   int64_t least) {
  check_cycle_positives(table, rows, threshold, least);
  return table.scalar_type() == ScalarType::Double ? cycles<double>(table, rows, threshold, least)
                                                   : cycles<float>(table, rows, threshold, least);
}

template <class T>
std::tuple<Tensor, Tensor> ranks_loss(const Tensor& features, const Tensor& table, const Tensor& indptr_tensor,
                                      const Tensor& indices_tensor, double delta, double hard_share,
                                      bool needs_gradient) {
  const Tensor f = row_major(features), v = row_major(table);
  const Tensor indptr = row_major(indptr_tensor), indices = row_major(indices_tensor);
  const int64_t rows = f.size(0), n = v.size(0), d = f.size(1);
  const T *feature = f.const_data_ptr<T>(), *row = v.const_data_ptr<T>();
  const std::vector<int64_t> offset = copy_of(indptr.const_data_ptr<int64_t>(), rows + 1);
  const std::vector<int32_t> index = copy_of(indices.const_data_ptr<int32_t>(), indices.numel());
  const std::vector<double> lengths = row_lengths(feature, rows, d, "features");
  const double longest = longest_row(row, n, d, "table");
  check_products<T>(lengths, longest, "table");
  std::vector<std::vector<int32_t>> own(rows);
  const ProductError<T> error(d, longest);
  std::vector<LargestOfRow<T>> largest;
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t hard = check_positives(offset.data(), index.data(), indices.numel(), i, n, hard_share);
    own[i].assign(index.begin() + offset[i], index.begin() + offset[i + 1]);
    largest.emplace_back(hard, error(lengths[i]));
  }
  for_tiles<T>({feature, rows, d, d}, {row, n, d, d},
               [&](int64_t i, const T* similarity, int64_t from, int64_t columns) {
                 between(from, from + columns, own[i], [&](int64_t start, int64_t until) {
                   largest[i].offer(similarity + (start - from), start, until - start);
                 });
               });
  Tensor gradient = new_tensor(f, {needs_gradient ? rows : 0, d});
  T* const g = needs_gradient ? gradient.mutable_data_ptr<T>() : nullptr;
  std::vector<double> loss(rows);
  parallel_for(0, rows, 2, [&](int64_t first, int64_t last) {
    std::vector<Term<T>> terms;
    for (int64_t i = first; i < last; ++i) {
      const auto& hardest = largest[i].finish(feature + i * d, row, d);
      const double positive = delta / static_cast<double>(own[i].size());
      const double negative = 1 / static_cast<double>(hardest.size()), scale = 2 / static_cast<double>(rows);
      terms.clear();
      for (const int32_t r : own[i]) {
        const double z = inner_product(feature + i * d, row + r * d, d);
        loss[i] += positive * (1 - z) * (1 - z);
        terms.push_back({static_cast<T>(-scale * positive * (1 - z)), row + r * d});
      }
      for (const Candidate<T>& candidate : hardest) {
        const double z = inner_product(feature + i * d, row + candidate.index * d, d);
        loss[i] += negative * (1 + z) * (1 + z);
        terms.push_back({static_cast<T>(scale * negative * (1 + z)), row + candidate.index * d});
      }
      if (g) combine(g + i * d, false, terms.data(), static_cast<int64_t>(terms.size()), 0, d);
    }
  });
  double sum = 0;
  for (const double value : loss) sum += value;
  check_result<T>(sum / static_cast<double>(rows), "delta");
  check_gradient<T>(gradient, "delta");
  return {scalar<T>(f, sum / static_cast<double>(rows)), gradient};
}

std::tuple<Tensor, Tensor> multi_label_loss(const Tensor& features, const Tensor& table, const Tensor& indptr,
                                            const Tensor& indices, double delta, double hard_share,
                                            bool needs_gradient) {
  check_multi_label_loss(features, table, indptr, indices, delta, hard_share);
  return features.scalar_type() == ScalarType::Double
             ? ranks_loss<double>(features, table, indptr, indices, delta, hard_share, needs_gradient)
             : ranks_loss<float>(features, table, indptr, indices, delta, hard_share, needs_gradient);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ise_fast, CPU, m) {
  m.impl("cycle_positives", OPERATOR(cycle_positives));
  m.impl("multi_label_loss", OPERATOR(multi_label_loss));
}

}  // namespace ise_fast
