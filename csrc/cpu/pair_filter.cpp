#include "pair_filter.h"

#include <cmath>
#include <limits>

#include "clones.h"
#include "exact_distance.h"

namespace ise_fast {
namespace {

// The same values outside autograd, which would refuse a product written into a buffer.
Tensor detached(const Tensor& tensor) {
  StableIValue stack = torch::stable::detail::from(tensor);
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::detach", "", &stack, TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack);
}

template <class T>
FilterRows measured(const Tensor& tensor, const char* name) {
  FilterRows result{row_major(detached(tensor)), {}, {}, {}};
  const int64_t n = tensor.size(0), d = tensor.size(1);
  const T* rows = result.original.const_data_ptr<T>();
  result.squared = squared_lengths(rows, n, d);
  for (int64_t i = 0; i < n; ++i) {
    if (std::isfinite(result.squared[i])) [[likely]]
      continue;
    const bool finite = std::all_of(rows + i * d, rows + (i + 1) * d, [](T value) { return std::isfinite(value); });
    check(finite, name, ": expected finite values, got NaN or infinity in row ", i);
    check(false, name, ": expected rows whose squared length float64 can hold, got a longer one in row ", i);
  }
  return result;
}

FilterRows measured(const Tensor& tensor, const char* name) {
  return tensor.scalar_type() == ScalarType::Double ? measured<double>(tensor, name) : measured<float>(tensor, name);
}

// Row i of `to` = row i of `from` * factor(i), rounded to float32 once.
template <class T, class Factor>
void scale_rows(const T* from, float* to, int64_t n, int64_t d, const Factor& factor) {
  parallel_for(0, n, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const double by = factor(i);
      for (int64_t c = i * d; c < (i + 1) * d; ++c) to[c] = static_cast<float>(static_cast<double>(from[c]) * by);
    }
  });
}

template <class Factor>
Tensor scaled_rows(const Tensor& original, const Factor& factor) {
  const int64_t n = original.size(0), d = original.size(1);
  Tensor rows = new_tensor(original, {n, d}, ScalarType::Float);
  auto* to = rows.mutable_data_ptr<float>();
  if (original.scalar_type() == ScalarType::Double) {
    scale_rows(original.const_data_ptr<double>(), to, n, d, factor);
  } else {
    scale_rows(original.const_data_ptr<float>(), to, n, d, factor);
  }
  return rows;
}

void fill_filter_side(FilterRows& side, Metric metric, double scale) {
  const bool cosine = metric == Metric::kCosine;
  if (cosine) {
    side.rows = scaled_rows(side.original,
                            [&](int64_t i) { return side.squared[i] > 0 ? 1 / std::sqrt(side.squared[i]) : 0.0; });
  } else if (scale == 1 && side.original.scalar_type() == ScalarType::Float) {
    side.rows = side.original;
  } else {
    side.rows = scaled_rows(side.original, [&](int64_t) { return scale; });
  }
  side.half.resize(side.squared.size());
  for (size_t i = 0; i < side.half.size(); ++i) {
    side.half[i] = cosine ? 0.0f : static_cast<float>(side.squared[i] * scale * scale / 2);
  }
}

double longest_row(const FilterRows& side) {
  double longest = 0;
  for (const double squared : side.squared) longest = std::max(longest, squared);
  return std::sqrt(longest);
}

bool has_tiny_row(const FilterRows& side) {
  return std::any_of(side.squared.begin(), side.squared.end(), [](double s) { return 0 < s && s < 1e-150; });
}

}  // namespace

PairFilter::PairFilter(const Tensor& x, const Tensor* y, Metric metric, double rounded)
    : metric_(metric), self_(y == nullptr), base_(measured(x, "x")), factor_rounding_(ise_fast::factor_rounding()) {
  if (y != nullptr) query_ = measured(*y, "y");
  const double longest_base = longest_row(base_);
  const double longest_any = self_ ? longest_base : std::max(longest_base, longest_row(query_));
  // Far from 1 a float32 product could overflow or underflow.
  if (metric != Metric::kCosine && longest_any > 0 && !(0x1p-20 < longest_any && longest_any < 0x1p20)) {
    scale_ = std::ldexp(1.0, -std::ilogb(longest_any));
  }
  fill_filter_side(base_, metric, scale_);
  if (!self_) fill_filter_side(query_, metric, scale_);
  longest_ = metric == Metric::kCosine ? 1 : longest_base * scale_;

  constexpr double u = 0x1p-24;
  const auto d = static_cast<double>(x.size(1));
  const bool bounded = d * u < 0.5;  // else no product of such rows says anything
  const double product = bounded ? d * u / (1 - d * u) : 1;
  // 8 u: rounding of the scaled factors, of `half` and of the difference; the second terms: flushed denormals, and the
  // rounding of the exact distance itself.
  relative_ = 1.01 * product + 2.02 * factor_rounding_ + 8 * u;
  absolute_ = 2 * u * square(longest_) + d * 0x1p-100;
  rounding_ = (d + 32) * 0x1p-52 + rounded;
  // float64 input so small that its squares underflow: compare everything exactly.
  const bool tiny = has_tiny_row(base_) || has_tiny_row(query_);
  if (!bounded || (x.scalar_type() == ScalarType::Double && (tiny || longest_any < 1e-75))) absolute_ = HUGE_VAL;
}

double PairFilter::length(int64_t i) const {
  return metric_ == Metric::kCosine ? 1 : std::sqrt(query().squared[i]) * scale_;
}

double PairFilter::filter_length(const FilterRows& side, int64_t i) const {
  if (metric_ == Metric::kCosine) return side.squared[i] > 0 ? 1 : 0;
  return std::sqrt(side.squared[i]) * scale_;
}

double PairFilter::exact_score(int64_t i, double distance) const {
  if (metric_ == Metric::kCosine) return distance - 1;
  return (distance * scale_ * scale_ - square(length(i))) / 2;
}

float PairFilter::score_limit(int64_t i, double distance) const {
  return above(exact_score(i, distance) + margin(i));
}

float above(double value) {
  return std::nextafterf(static_cast<float>(value), std::numeric_limits<float>::infinity());
}

ISE_CLONES int64_t find_row_hits(const float* product, const float* half, float limit, int64_t n, int32_t* hits) {
  constexpr int64_t kBlock = 32;  // most blocks hold no hit: one test settles them
  int64_t count = 0, j = 0;
  for (; j + kBlock <= n; j += kBlock) {
    int any = 0;
    for (int64_t l = j; l < j + kBlock; ++l) any |= half[l] - product[l] <= limit;
    if (!any) continue;
    for (int64_t l = j; l < j + kBlock; ++l) {
      hits[count] = static_cast<int32_t>(l);
      count += half[l] - product[l] <= limit;
    }
  }
  for (; j < n; ++j) {
    hits[count] = static_cast<int32_t>(j);
    count += half[j] - product[j] <= limit;
  }
  return count;
}

ISE_CLONES int64_t find_column_hits(const float* product, float half, const float* limit, int64_t n, int32_t* hits) {
  constexpr int64_t kBlock = 32;
  int64_t count = 0, j = 0;
  for (; j + kBlock <= n; j += kBlock) {
    int any = 0;
    for (int64_t l = j; l < j + kBlock; ++l) any |= half - product[l] <= limit[l];
    if (!any) continue;
    for (int64_t l = j; l < j + kBlock; ++l) {
      hits[count] = static_cast<int32_t>(l);
      count += half - product[l] <= limit[l];
    }
  }
  for (; j < n; ++j) {
    hits[count] = static_cast<int32_t>(j);
    count += half - product[j] <= limit[j];
  }
  return count;
}

TileShape tile_shape(int64_t rows, int64_t columns, bool self, int64_t block) {
  if (block > 0) return {block, block};
  constexpr int64_t kEdge = 512, kLeast = 64, kTilesPerThread = 8;
  const auto tiles = static_cast<double>(kTilesPerThread * torch::stable::get_num_threads());
  // self: edge^2 * tiles = rows^2 / 2
  const double wanted = self ? static_cast<double>(rows) / std::sqrt(2 * tiles)
                             : static_cast<double>(rows) * static_cast<double>(columns) / (kEdge * tiles);
  const int64_t height = std::clamp(static_cast<int64_t>(wanted) / 16 * 16, kLeast, kEdge);
  return {height, self ? height : kEdge};
}

}  // namespace ise_fast
