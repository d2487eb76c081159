// The hybrid memory of SpCL: sums of groups of rows, and the loss of features against the groups' means.
#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "../check_methods.h"
#include "changed.h"
#include "head.h"
#include "online_softmax.h"
#include "operator.h"
#include "rows.h"
#include "scaled.h"

namespace ise_fast {
namespace {

// p = e^z / (sum e^z + eps), loss = -log(p_y + eps), with everything relative to the largest logit.
template <class T>
std::tuple<Tensor, Tensor> groups_loss(const Tensor& features, const Tensor& sums, const Tensor& counts,
                                       const Tensor& labels, double temperature, double eps, bool needs_gradient) {
  const Tensor f = row_major(features), s = row_major(sums);
  const Tensor n = row_major(counts);
  const int64_t rows = f.size(0), d = f.size(1), groups = s.size(0);
  const std::vector<int64_t> label = checked_labels(labels, groups);
  const std::vector<int64_t> owned = copy_of(n.const_data_ptr<int64_t>(), groups);
  std::vector<T> scale(groups);
  for (int64_t c = 0; c < groups; ++c) {
    check(owned[c] >= 0, "counts: expected at least 0, got ", owned[c], " for group ", c);
    scale[c] = owned[c] > 0 ? T{1} / static_cast<T>(owned[c]) : T{0};
  }
  std::vector<std::vector<Apart<T>>> apart(rows);
  std::vector<int64_t> all(rows);
  for (int64_t i = 0; i < rows; ++i) {
    check(owned[label[i]] > 0, "labels: expected groups that own rows, got ", label[i], " with none at row ", i);
    apart[i] = {{label[i], 1, false}};
    all[i] = i;
  }
  Tensor gradient = new_tensor(f, {needs_gradient ? rows : 0, d});
  T* const g = needs_gradient ? gradient.mutable_data_ptr<T>() : nullptr;
  const T *feature = f.const_data_ptr<T>(), *sum = s.const_data_ptr<T>();
  std::vector<SampleSums<T>> sample(rows);
  const OnlineSoftmax<T> softmax({feature, rows, d, d}, {sum, groups, d, d}, scale.data(), temperature);
  if (!softmax.run(all, 0, groups, apart, sample, g)) refuse_products<T>(f, s, "sums");

  double loss = 0;
  for (int64_t i = 0; i < rows; ++i) {
    const double top = static_cast<double>(sample[i].top) / temperature;
    const double own = std::exp((static_cast<double>(apart[i][0].product) - sample[i].top) / temperature);
    const double others = sample[i].rest + eps * std::exp(std::min(-top, 700.0)), total = own + others;
    const double p = own / total;
    loss -= others < 0.5 * total ? std::log1p(eps - others / total) : std::log(p + eps);
    if (!g) continue;
    const double scaled = p / (p + eps) / (total * static_cast<double>(rows) * temperature);
    const Term<T> terms[] = {{static_cast<T>(scaled), g + i * d},
                             {static_cast<T>(-others * scaled * scale[label[i]]), sum + label[i] * d}};
    std::vector<T> row(d);
    combine(row.data(), false, terms, 2, 0, d);
    std::copy(row.begin(), row.end(), g + i * d);
  }
  check_result<T>(loss, "temperature");
  check_gradient<T>(gradient, "temperature");
  return {scalar<T>(f, loss / static_cast<double>(rows)), gradient};
}

std::tuple<Tensor, Tensor> group_nce_loss(const Tensor& features, const Tensor& sums, const Tensor& counts,
                                          const Tensor& labels, double temperature, double eps, bool needs_gradient) {
  check_group_nce_loss(features, sums, counts, labels, temperature, eps);
  return features.scalar_type() == ScalarType::Double
             ? groups_loss<double>(features, sums, counts, labels, temperature, eps, needs_gradient)
             : groups_loss<float>(features, sums, counts, labels, temperature, eps, needs_gradient);
}

// The gradient of a loss that its forward operator has made.
Tensor loss_backward(const Tensor& grad, const Tensor& features, const Tensor& gradient, std::string) {
  check_loss_backward(grad, features, gradient);
  return features.scalar_type() == ScalarType::Double ? scaled<double>(gradient, scalar_value(grad))
                                                      : scaled<float>(gradient, scalar_value(grad));
}

template <class T, class S>
void refresh(Tensor& sums, const Tensor& table_tensor, const Tensor& indptr_tensor, const Tensor& rows_tensor,
             const Tensor& touched_tensor) {
  const Tensor table = row_major(table_tensor), indptr = row_major(indptr_tensor);
  const Tensor members = row_major(rows_tensor);
  const int64_t groups = sums.size(0), d = table.size(1);
  const auto* offset = indptr.const_data_ptr<int64_t>();
  std::vector<int64_t> ids = checked_labels(touched_tensor, groups, "touched");
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  std::vector<std::vector<int64_t>> row;  // the members of each
  for (const int64_t id : ids) {
    const int64_t begin = load_once(offset + id), end = load_once(offset + id + 1);
    check(0 <= begin && begin <= end && end <= members.numel(), "members.indptr: expected offsets from 0 to ",
          members.numel(), " that never fall, got ", begin, " and ", end, " for group ", id);
    row.push_back(copy_of(members.const_data_ptr<int64_t>() + begin, end - begin));
    check_label_values(row.back().data(), end - begin, table.size(0), "members.rows");
  }
  const T* const from = table.const_data_ptr<T>();
  S* const to = sums.mutable_data_ptr<S>();
  const auto touched = static_cast<int64_t>(ids.size());
  constexpr int64_t kStrip = 1024;  // columns of a task: large groups are shared among threads
  const int64_t strips = (d + kStrip - 1) / kStrip;
  // Written at the end: an error, or sums that are rows of the table, do no harm.
  const std::unique_ptr<S[]> made(new S[touched * d]);
  std::vector<uint8_t> bad(touched * strips, 0);
  parallel_tasks(touched * strips, [&](int64_t task) {
    const int64_t g = task / strips, column = task % strips * kStrip, width = std::min(kStrip, d - column);
    thread_local std::vector<const T*> parts;
    parts.clear();
    for (const int64_t r : row[g]) parts.push_back(from + r * d + column);
    double sum[kStrip] = {};
    add_rows(sum, parts.data(), static_cast<int64_t>(parts.size()), width);
    S* const out = made.get() + g * d + column;
    for (int64_t c = 0; c < width; ++c) out[c] = static_cast<S>(sum[c]);
    bad[task] = !std::all_of(out, out + width, [](S s) { return std::isfinite(s); });
  });
  if (const auto found = std::find(bad.begin(), bad.end(), 1); found != bad.end()) {
    check(false, "table: expected finite values with finite sums, got NaN or infinity in the sum of group ",
          ids[(found - bad.begin()) / strips]);
  }
  const Uninterrupted writing;
  for (int64_t g = 0; g < touched; ++g) std::copy_n(made.get() + g * d, d, to + ids[g] * d);
}

void refresh_groups_(Tensor sums, const Tensor& table, const Tensor& indptr, const Tensor& rows,
                     const Tensor& touched) {
  check_refresh_groups(sums, table, indptr, rows, touched);
  if (table.scalar_type() == ScalarType::Double) return refresh<double, double>(sums, table, indptr, rows, touched);
  if (sums.scalar_type() == ScalarType::Double) return refresh<float, double>(sums, table, indptr, rows, touched);
  refresh<float, float>(sums, table, indptr, rows, touched);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ise_fast, CPU, m) {
  m.impl("group_nce_loss", OPERATOR(group_nce_loss));
  m.impl("loss_backward", OPERATOR(loss_backward));
  m.impl("refresh_groups_", OPERATOR(refresh_groups_));
}

}  // namespace ise_fast
