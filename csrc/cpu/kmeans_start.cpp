// k-means++ (Arthur & Vassilvitskii, SODA 2007): the first row by the first draw, each further one with a probability
// in proportion to its squared distance from the nearest one so far. Sums are taken in groups and chunks of rows
// (math/row_sum.h), chunks in order, on every device. If all rows are at distance 0, the lowest row not taken follows.
//
// A draw needs the distance of every row to the row drawn last, where it is the smallest so far. Reading all rows K
// times is what costs. A copy in bytes, a quarter as long, proves for most rows that the new distance is no smaller;
// the others are computed exactly. So the rows chosen are those of the plain method.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "../check_methods.h"
#include "../math/row_sum.h"
#include "changed.h"
#include "clones.h"
#include "exact_distance.h"
#include "head.h"
#include "operator.h"
#include "parallel.h"

namespace ise_fast {
namespace {

constexpr int64_t kSafeBytes = int64_t{1} << 16;  // products of two bytes that an int32 can add up

ISE_CLONES int32_t dot_bytes(const int8_t* a, const int8_t* b, int64_t n) {
  int32_t sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

// Every row as a number times a row of bytes, and how long the rest is.
template <class T>
class ByteRows {
public:
  ByteRows(const T* row, int64_t n, int64_t d) : d_(d), byte_(n * d), scale_(n), square_(n), rest_(n) {
    parallel_for(0, n, 16, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) encode(row + i * d, i);
    });
  }

  // Whether the float64 squared distance of rows i and c is certainly above the limit. False where numbers are too
  // large for their squares.
  bool farther(int64_t i, int64_t c, double limit) const {
    double dot = 0;
    for (int64_t j = 0; j < d_; j += kSafeBytes) {
      dot += dot_bytes(at(i) + j, at(c) + j, std::min(kSafeBytes, d_ - j));
    }
    const double sum = square_[i] + square_[c];
    const double between = sum - 2 * (scale_[i] * scale_[c] * dot) - 1e-12 * sum;
    if (!(between > 0)) return false;
    const double least = std::sqrt(between) - (rest_[i] + rest_[c]);
    return least > 0 && least * least * (1 - rounding()) > limit;
  }

private:
  const int8_t* at(int64_t i) const { return byte_.data() + i * d_; }
  // Relative, of a float64 sum of d terms, and more.
  double rounding() const { return 1e-9 + static_cast<double>(d_) * 0x1p-52; }

  void encode(const T* row, int64_t i) {
    double largest = 0;
    for (int64_t j = 0; j < d_; ++j) largest = std::max(largest, std::abs(static_cast<double>(row[j])));
    const double scale = largest / 127;
    double square = 0, rest = 0;
    for (int64_t j = 0; j < d_; ++j) {
      const double value = row[j];
      const double code = scale > 0 ? std::clamp(std::nearbyint(value / scale), -127.0, 127.0) : 0;
      byte_[i * d_ + j] = static_cast<int8_t>(code);
      square += (scale * code) * (scale * code);
      rest += (value - scale * code) * (value - scale * code);
    }
    scale_[i] = scale;
    square_[i] = square;
    rest_[i] = (std::sqrt(rest) + 1e-14 * std::sqrt(square)) * (1 + rounding());
  }

  const int64_t d_;
  std::vector<int8_t> byte_;
  std::vector<double> scale_, square_, rest_;
};

double group_sum(const double* weight, int64_t n, int64_t group) {
  double lane[kDotLanes] = {};
  const int64_t first = group * kStartGroup, count = std::min(kStartGroup, n - first);
  for (int64_t i = 0; i < count; ++i) lane[i] = weight[first + i];
  return fold_dot_lanes(lane);
}

double chunk_sum(const double* weight, int64_t n, int64_t chunk) {
  double lane[kDotLanes] = {};
  for (int64_t g = 0; g < kDotLanes && chunk * kStartChunk + g * kStartGroup < n; ++g) {
    lane[g] = group_sum(weight, n, chunk * kDotLanes + g);
  }
  return fold_dot_lanes(lane);
}

// The row that a draw in [0, 1) falls on when row i takes a share of weight[i]; sum[b] is the sum of chunk b. -1 if all
// weights are zero.
int64_t drawn_row(const std::vector<double>& sum, const double* weight, int64_t n, double draw) {
  double total = 0, below = 0;
  for (const double chunk : sum) total += chunk;
  if (!(total > 0)) return -1;
  const double goal = draw * total;
  const int64_t chunk = place_of(goal, below, static_cast<int64_t>(sum.size()), [&](int64_t b) { return sum[b]; });
  const int64_t first = chunk * kStartChunk,
                groups = (std::min(kStartChunk, n - first) + kStartGroup - 1) / kStartGroup;
  const int64_t group =
      place_of(goal, below, groups, [&](int64_t g) { return group_sum(weight, n, chunk * kDotLanes + g); });
  const int64_t row = first + group * kStartGroup;
  return row + place_of(goal, below, std::min(kStartGroup, n - row), [&](int64_t i) { return weight[row + i]; });
}

template <class T>
Tensor start(const Tensor& x_tensor, const Tensor& draws_tensor) {
  const Tensor x = row_major(x_tensor), draws = row_major(draws_tensor);
  const T* const row = x.const_data_ptr<T>();
  const std::vector<double> draw = copy_of(draws.const_data_ptr<double>(), draws.numel());
  const int64_t n = x.size(0), d = x.size(1), k = draws.numel(), chunks = (n + kStartChunk - 1) / kStartChunk;
  row_lengths(row, n, d, "x");
  for (int64_t c = 0; c < k; ++c) {
    check(0 <= draw[c] && draw[c] < 1, "draws: expected numbers in [0, 1), got ", draw[c], " at ", c);
  }
  Tensor out = new_tensor(x, {k}, ScalarType::Long);
  auto* chosen = out.mutable_data_ptr<int64_t>();
  const ByteRows<T> bytes(row, n, d);
  std::vector<double> distance(n, std::numeric_limits<double>::infinity()), sum(chunks);
  std::vector<uint8_t> taken(n, 0);
  for (int64_t c = 0; c < k; ++c) {
    if (c == 0) {
      chosen[0] = std::min(static_cast<int64_t>(draw[0] * static_cast<double>(n)), n - 1);
    } else {
      parallel_for(0, chunks, 1, [&](int64_t first, int64_t last) {
        for (int64_t b = first; b < last; ++b) sum[b] = chunk_sum(distance.data(), n, b);
      });
      chosen[c] = drawn_row(sum, distance.data(), n, draw[c]);
      if (chosen[c] < 0) chosen[c] = std::find(taken.begin(), taken.end(), 0) - taken.begin();
    }
    taken[chosen[c]] = 1;
    parallel_for(0, n, 64, [&](int64_t first, int64_t last) {
      const int32_t zero = 0;
      for (int64_t i = first; i < last; ++i) {
        if (bytes.farther(i, chosen[c], distance[i])) continue;
        double to_new = 0;
        squared_distances(row + i * d, row + chosen[c] * d, d, &zero, 1, &to_new);
        distance[i] = std::min(distance[i], to_new);
      }
    });
  }
  return out;
}

Tensor kmeans_start(const Tensor& x, const Tensor& draws) {
  check_kmeans_start(x, draws);
  return x.scalar_type() == ScalarType::Double ? start<double>(x, draws) : start<float>(x, draws);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ise_fast, CPU, m) {
  m.impl("kmeans_start", OPERATOR(kmeans_start));
}

}  // namespace ise_fast
