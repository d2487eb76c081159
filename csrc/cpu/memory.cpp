// The cluster memory's update (Dai et al. 2021; hard mode as in ISE) and its Gram matrix.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <vector>

#include "head.h"
#include "matrix.h"
#include "rows.h"
#include "supports.h"

namespace ise_fast {
namespace {

// c <- momentum c + (1 - momentum) row, made unit again
template <class T>
void move(T* centroid, const T* row, double momentum, int64_t d) {
  thread_local std::vector<T> sum;
  sum.resize(d);
  const Term<T> terms[] = {{static_cast<T>(momentum), centroid}, {static_cast<T>(1 - momentum), row}};
  combine(sum.data(), false, terms, 2, 0, d);
  const double norm = std::max(std::sqrt(inner_product(sum.data(), sum.data(), d)), kShortestNorm);
  divide(centroid, sum.data(), static_cast<T>(norm), d);
}

template <class T>
void update(Tensor& centroids, const Tensor& rows_tensor, const Tensor& labels, const std::optional<Tensor>& supports,
            double momentum, bool hard) {
  const Tensor rows = torch::stable::contiguous(rows_tensor), y = torch::stable::contiguous(labels);
  const Tensor more = supports ? torch::stable::contiguous(*supports) : torch::stable::new_empty(rows, {0, 1, 1});
  const int64_t first = rows.size(0), k = supports ? more.size(1) : 0, all = first * (1 + k), d = rows.size(1);
  const int64_t clusters = centroids.size(0);
  const auto* label = y.const_data_ptr<int64_t>();
  check_label_values(label, first, clusters);
  const auto check_finite = [&] {
    row_lengths(rows.const_data_ptr<T>(), first, d, "rows");
    row_lengths(more.const_data_ptr<T>(), first * k, d, "supports");
  };

  // Rows of each label in the published order: all features, then all supports.
  const auto row = [&](int64_t i) {
    return i < first ? rows.const_data_ptr<T>() + i * d : more.const_data_ptr<T>() + (i - first) * d;
  };
  const auto label_of = [&](int64_t i) { return label[i < first ? i : (i - first) / k]; };
  std::vector<int64_t> order(all);
  for (int64_t i = 0; i < all; ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return label_of(a) < label_of(b); });
  std::vector<int64_t> starts;
  for (int64_t p = 0; p < all; ++p) {
    if (p == 0 || label_of(order[p]) != label_of(order[p - 1])) starts.push_back(p);
  }
  const auto groups = static_cast<int64_t>(starts.size());
  starts.push_back(all);

  T* const centroid = centroids.mutable_data_ptr<T>();
  std::vector<T> similarity(hard ? all : 0);
  if (hard) {
    torch::stable::parallel_for(0, all, 16, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        similarity[i] = static_cast<T>(inner_product(row(i), centroid + label_of(i) * d, d));
      }
    });
  }
  // NaN and infinity in a row show in its similarity.
  if (!std::all_of(similarity.begin(), similarity.end(), [](T s) { return std::isfinite(s); }) || !hard) check_finite();
  torch::stable::parallel_for(0, groups, 1, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) {
      const auto from = order.begin() + starts[g], to = order.begin() + starts[g + 1];
      T* const c = centroid + label_of(*from) * d;
      if (hard) {
        move(c, row(*std::min_element(from, to, [&](auto a, auto b) { return similarity[a] < similarity[b]; })),
             momentum, d);
      } else {
        for (auto i = from; i < to; ++i) move(c, row(*i), momentum, d);
      }
    }
  });
}

void update_memory_(Tensor centroids, const Tensor& rows, const Tensor& labels, const std::optional<Tensor>& supports,
                    double momentum, std::string mode) {
  check_update_memory(centroids, rows, labels, supports, momentum, mode);
  Tensor target = torch::stable::contiguous(centroids);
  if (rows.scalar_type() == ScalarType::Double) {
    update<double>(target, rows, labels, supports, momentum, mode == "hard");
  } else {
    update<float>(target, rows, labels, supports, momentum, mode == "hard");
  }
  if (!centroids.is_contiguous()) torch::stable::copy_(centroids, target);
}

// gram = C C^T, all of it or, with labels, the rows and columns of those.
template <class T>
void refresh(Tensor& gram, const Tensor& centroids_tensor, const std::optional<Tensor>& labels) {
  const Tensor centroids = torch::stable::contiguous(centroids_tensor);
  const int64_t clusters = centroids.size(0), d = centroids.size(1);
  const T* const c = centroids.const_data_ptr<T>();
  const Matrix<const T> all{c, clusters, d, d};
  T* const out = gram.mutable_data_ptr<T>();
  if (!labels) {
    multiply<T>({out, clusters, clusters, clusters}, all, all.transposed(), false, true);
    torch::stable::parallel_for(0, clusters, 64, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        for (int64_t j = 0; j < i; ++j) out[i * clusters + j] = out[j * clusters + i];
      }
    });
    return;
  }
  const Tensor y = torch::stable::contiguous(*labels);
  check_label_values(y.const_data_ptr<int64_t>(), y.numel(), clusters);
  std::vector<int64_t> ids(y.const_data_ptr<int64_t>(), y.const_data_ptr<int64_t>() + y.numel());
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  const auto count = static_cast<int64_t>(ids.size());
  const std::unique_ptr<T[]> rows(new T[count * d]), products(new T[clusters * count]);
  for (int64_t r = 0; r < count; ++r) std::copy_n(c + ids[r] * d, d, rows.get() + r * d);
  // All times the changed ones: the library packs its second operand, so the short one goes there.
  multiply<T>({products.get(), clusters, count, count}, all, Matrix<const T>{rows.get(), count, d, d}.transposed());
  // A pair of changed rows has two products, possibly with different last bits: one stands for both.
  for (int64_t r = 0; r < count; ++r) {
    for (int64_t q = 0; q < r; ++q) products[ids[r] * count + q] = products[ids[q] * count + r];
  }
  torch::stable::parallel_for(0, clusters, 64, [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; ++j) {
      for (int64_t r = 0; r < count; ++r) {
        out[j * clusters + ids[r]] = out[ids[r] * clusters + j] = products[j * count + r];
      }
    }
  });
}

void refresh_gram_(Tensor gram, const Tensor& centroids, const std::optional<Tensor>& labels) {
  check_refresh_gram(gram, centroids, labels);
  if (centroids.scalar_type() == ScalarType::Double) {
    refresh<double>(gram, centroids, labels);
  } else {
    refresh<float>(gram, centroids, labels);
  }
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ise_fast, CPU, m) {
  m.impl("update_memory_", TORCH_BOX(&update_memory_));
  m.impl("refresh_gram_", TORCH_BOX(&refresh_gram_));
}

}  // namespace ise_fast
