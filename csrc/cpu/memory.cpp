// The cluster memory's update (Dai et al. 2021; hard mode as in ISE) and its Gram matrix.
#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <optional>
#include <vector>

#include "head.h"
#include "matrix.h"
#include "operator.h"
#include "rows.h"
#include "supports.h"

namespace ise_fast {
namespace {

// A centroid that is about to move: numbers, and none so large that its length leaves the range of T.
template <class T>
void check_centroid(const T* centroid, int64_t cluster, int64_t d, double longest_row) {
  const double length = std::sqrt(inner_product(centroid, centroid, d));
  check(length <= std::numeric_limits<T>::max(), "centroids: expected finite values (and a length that the dtype can ",
        "hold), got length ", length, " in row ", cluster);
  check(length * longest_row <= std::numeric_limits<T>::max(), "rows: expected inner products with the centroids that ",
        "the dtype can hold, got lengths up to ", longest_row, " and ", length, " in row ", cluster, " of centroids");
}

// An element of the diagonal of the Gram matrix.
template <class T>
void check_square(T square, int64_t cluster) {
  check(std::isfinite(square), "centroids: expected finite values (and squares that the dtype can hold), got ", square,
        " in row ", cluster);
}

// c <- momentum c + (1 - momentum) row, made unit again. scratch: [d]
template <class T>
void move(T* centroid, const T* row, double momentum, int64_t d, T* scratch) {
  const Term<T> terms[] = {{static_cast<T>(momentum), centroid}, {static_cast<T>(1 - momentum), row}};
  combine(scratch, false, terms, 2, 0, d);
  const double norm = std::max(std::sqrt(inner_product(scratch, scratch, d)), kShortestNorm);
  divide(centroid, scratch, static_cast<T>(norm), d);
}

// The rows of a batch in the published order: all features, then all supports.
template <class T>
struct Batch {
  const T* feature;  // [first, d]
  const T* support;  // [first, k, d]
  const std::vector<int64_t>& label;
  int64_t first, k, d;

  int64_t size() const { return first * (1 + k); }
  const T* row(int64_t i) const { return i < first ? feature + i * d : support + (i - first) * d; }
  int64_t label_of(int64_t i) const { return label[i < first ? i : (i - first) / k]; }
};

// What the rows of one label do to its centroid, a copy.
template <class T>
void move_by_all(const Batch<T>& batch, const int64_t* from, const int64_t* to, double momentum, bool hard, T* centroid,
                 std::vector<T>& scratch) {
  const int64_t d = batch.d;
  scratch.resize(d);
  if (!hard) {
    for (const int64_t* i = from; i < to; ++i) move(centroid, batch.row(*i), momentum, d, scratch.data());
    return;
  }
  int64_t least = *from;
  T smallest = std::numeric_limits<T>::infinity();
  for (const int64_t* i = from; i < to; ++i) {
    const T similarity = static_cast<T>(inner_product(batch.row(*i), centroid, d));
    if (similarity < smallest) {
      smallest = similarity;
      least = *i;
    }
  }
  move(centroid, batch.row(least), momentum, d, scratch.data());
}

// Everything is computed apart and written at the end: an error, or a row that is itself a centroid, does no harm.
template <class T>
void update(const Tensor& centroids, const Tensor& rows_tensor, const Tensor& labels,
            const std::optional<Tensor>& supports, double momentum, bool hard) {
  const Tensor rows = row_major(rows_tensor);
  const Tensor more = supports ? row_major(*supports) : new_tensor(rows, {0, 1, 1});
  const int64_t clusters = centroids.size(0), d = rows.size(1);
  const std::vector<int64_t> label = checked_labels(labels, clusters);
  const Batch<T> batch{
      rows.const_data_ptr<T>(), more.const_data_ptr<T>(), label, rows.size(0), supports ? more.size(1) : 0, d};
  double longest = 0;
  for (const double l : row_lengths(batch.feature, batch.first, d, "rows")) longest = std::max(longest, l);
  for (const double l : row_lengths(batch.support, batch.first * batch.k, d, "supports"))
    longest = std::max(longest, l);

  std::vector<int64_t> order(batch.size());
  for (int64_t i = 0; i < batch.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return batch.label_of(a) < batch.label_of(b); });
  std::vector<int64_t> starts, targets;
  for (int64_t p = 0; p < batch.size(); ++p) {
    const int64_t target = batch.label_of(order[p]);
    if (!targets.empty() && targets.back() == target) continue;
    starts.push_back(p);
    targets.push_back(target);
  }
  const auto groups = static_cast<int64_t>(targets.size());
  starts.push_back(batch.size());

  const int64_t down = centroids.stride(0), across = centroids.stride(1);
  T* const out = centroids.mutable_data_ptr<T>();
  std::vector<T> moved(groups * d);
  for (int64_t g = 0; g < groups; ++g) {
    for (int64_t c = 0; c < d; ++c) moved[g * d + c] = out[targets[g] * down + c * across];
  }
  for (int64_t g = 0; g < groups; ++g) check_centroid(moved.data() + g * d, targets[g], d, longest);
  parallel_blocks(groups, [&](Blocks& next) {
    std::vector<T> scratch;
    for (int64_t g = next(); g < groups; g = next()) {
      move_by_all(batch, order.data() + starts[g], order.data() + starts[g + 1], momentum, hard, moved.data() + g * d,
                  scratch);
    }
  });
  const Uninterrupted writing;
  for (int64_t g = 0; g < groups; ++g) {
    for (int64_t c = 0; c < d; ++c) out[targets[g] * down + c * across] = moved[g * d + c];
  }
}

void update_memory_(Tensor centroids, const Tensor& rows, const Tensor& labels, const std::optional<Tensor>& supports,
                    double momentum, std::string mode) {
  check_update_memory(centroids, rows, labels, supports, momentum, mode);
  const auto run = rows.scalar_type() == ScalarType::Double ? update<double> : update<float>;
  run(centroids, rows, labels, supports, momentum, mode == "hard");
}

// gram = C C^T, all of it or, with labels, the rows and columns of those. Written at the end, as above.
template <class T>
void refresh(const Tensor& gram, const Tensor& centroids_tensor, const std::optional<Tensor>& labels) {
  const Tensor centroids = row_major(centroids_tensor);
  const int64_t clusters = centroids.size(0), d = centroids.size(1);
  const T* const c = centroids.const_data_ptr<T>();
  const Matrix<const T> all{c, clusters, d, d};
  T* const out = gram.mutable_data_ptr<T>();
  if (!labels) {
    const std::unique_ptr<T[]> products(new T[clusters * clusters]);
    multiply<T>({products.get(), clusters, clusters, clusters}, all, all.transposed(), false, true);
    for (int64_t i = 0; i < clusters; ++i) check_square(products[i * (clusters + 1)], i);
    const Uninterrupted writing;
    parallel_for(0, clusters, 64, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        for (int64_t j = 0; j < clusters; ++j) {
          out[i * clusters + j] = products[i < j ? i * clusters + j : j * clusters + i];
        }
      }
    });
    return;
  }
  std::vector<int64_t> ids = checked_labels(*labels, clusters);
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  const auto count = static_cast<int64_t>(ids.size());
  const std::unique_ptr<T[]> rows(new T[count * d]), products(new T[clusters * count]);
  for (int64_t r = 0; r < count; ++r) std::copy_n(c + ids[r] * d, d, rows.get() + r * d);
  // All times the changed ones: the library packs its second operand, so the short one goes there.
  multiply<T>({products.get(), clusters, count, count}, all, Matrix<const T>{rows.get(), count, d, d}.transposed());
  for (int64_t j = 0; j < clusters; ++j) {  // rows that did not change may be no numbers, too
    for (int64_t r = 0; r < count; ++r) {
      check(std::isfinite(products[j * count + r]), "centroids: expected finite values (and inner products that the ",
            "dtype can hold), got ", products[j * count + r], " for rows ", j, " and ", ids[r]);
    }
  }
  // A pair of changed rows has two products, possibly with different last bits: one stands for both.
  for (int64_t r = 0; r < count; ++r) {
    for (int64_t q = 0; q < r; ++q) products[ids[r] * count + q] = products[ids[q] * count + r];
  }
  const Uninterrupted writing;
  parallel_for(0, clusters, 64, [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; ++j) {
      for (int64_t r = 0; r < count; ++r) {
        out[j * clusters + ids[r]] = out[ids[r] * clusters + j] = products[j * count + r];
      }
    }
  });
}

void refresh_gram_(Tensor gram, const Tensor& centroids, const std::optional<Tensor>& labels) {
  check_refresh_gram(gram, centroids, labels);
  const auto run = centroids.scalar_type() == ScalarType::Double ? refresh<double> : refresh<float>;
  run(gram, centroids, labels);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ise_fast, CPU, m) {
  m.impl("update_memory_", OPERATOR(update_memory_));
  m.impl("refresh_gram_", OPERATOR(refresh_gram_));
}

}  // namespace ise_fast
