// k-reciprocal re-ranking of queries against a gallery (Zhong et al. 2017), over the rows of both together.
//
//   d(i,j)  = |x_i - x_j|^2 / max over j of |x_i - x_j|^2
//   V(i,j)  = exp(-d(i,j)) / sum over R*(i), j in R*(i)              sets and query expansion: k_reciprocal.h
//   result  = (1 - lambda) * Jaccard distance of V' + lambda * d     queries by gallery
//
// Every distance is the float64 one of math/distance.h, so the result depends on no block and no thread count. Nothing
// larger than the result is dense.
#include <vector>

#include "../check_rank.h"
#include "../math/exp.h"
#include "exact_distance.h"
#include "furthest.h"
#include "jaccard.h"
#include "k_reciprocal.h"
#include "operator.h"

namespace ise_fast {
namespace {

// Rows of squared distances over the largest one of the row.
class ScaledDistances {
public:
  ScaledDistances(const Tensor& x, std::vector<double> furthest)
      : rows_(x.const_data_ptr<float>()), d_(x.size(1)), furthest_(std::move(furthest)) {}

  void operator()(int64_t i, const int32_t* index, int64_t n, double* out) const {
    squared_distances(rows_ + i * d_, rows_, d_, index, n, out);
    for (int64_t r = 0; r < n; ++r) out[r] = furthest_[i] > 0 ? out[r] / furthest_[i] : 0.0;
  }

private:
  const float* rows_;
  int64_t d_;
  std::vector<double> furthest_;
};

// V: the float32 numerators are added in float64, in ascending column order.
void weigh(const ScaledDistances& scaled, const Csr& star, float* v) {
  parallel_rows(star.rows, [&](const auto& for_rows) {
    std::vector<double> distance;
    for_rows([&](int64_t i) {
      const int64_t begin = star.indptr[i], size = star.indptr[i + 1] - begin;
      distance.resize(size);
      scaled(i, star.indices + begin, size, distance.data());
      double sum = 0.0;
      for (int64_t c = 0; c < size; ++c) {
        v[begin + c] = exp_nonpositive(static_cast<float>(-distance[c]));
        sum += v[begin + c];
      }
      for (int64_t c = 0; c < size; ++c) v[begin + c] = static_cast<float>(v[begin + c] / sum);
    });
  });
}

// lambda * d for every query and gallery entry. A block of gallery rows stays in the cache for a block of queries.
void write_distances(const ScaledDistances& scaled, int64_t queries, int64_t gallery, float lambda, float* out) {
  constexpr int64_t kQueries = 16, kGallery = 32;
  parallel_blocks((queries + kQueries - 1) / kQueries, [&](Blocks& next) {
    int32_t index[kGallery];
    double distance[kGallery];
    for (int64_t first = next() * kQueries; first < queries; first = next() * kQueries) {
      for (int64_t start = 0; start < gallery; start += kGallery) {
        const int64_t count = std::min(kGallery, gallery - start);
        for (int64_t c = 0; c < count; ++c) index[c] = static_cast<int32_t>(queries + start + c);
        for (int64_t q = first; q < std::min(queries, first + kQueries); ++q) {
          scaled(q, index, count, distance);
          float* row = out + q * gallery + start;
          for (int64_t c = 0; c < count; ++c) row[c] = lambda * static_cast<float>(distance[c]);
        }
      }
    }
  });
}

// Adds weight * (Jaccard distance).
void add_jaccard(const Csr& v, int64_t queries, float weight, float* out) {
  const Columns columns(v);
  const int64_t gallery = v.rows - queries;
  parallel_rows(queries, [&](const auto& for_rows) {
    SharedMass mass(v, columns);
    std::vector<float> jaccard(v.rows, 1.0f);
    for_rows([&](int64_t q) {
      mass.compute(q);
      std::fill(jaccard.begin(), jaccard.end(), 1.0f);
      mass.drain([&](int32_t j, float s) { jaccard[j] = jaccard_from_shared(s); });
      float* row = out + q * gallery;
      for (int64_t g = 0; g < gallery; ++g) row[g] += weight * jaccard[queries + g];
    });
  });
}

// `neighbours`: k1 + 1 columns. `block`: rows of a tile of the filter, 0 chooses (for tests).
Tensor re_ranking(const Tensor& features, const Tensor& neighbours, int64_t queries, int64_t k2, double lambda,
                  int64_t block) {
  check_block(block);
  check_re_ranking(features, neighbours, queries, k2, lambda);
  const Tensor x = row_major(features), nn = row_major(neighbours);
  const int64_t rows = nn.size(0), columns = nn.size(1), gallery = rows - queries;
  const std::vector<int32_t> neighbour = narrow_neighbours(nn);
  Tensor result = new_tensor(x, {queries, gallery});
  auto* out = result.mutable_data_ptr<float>();

  const ScaledDistances scaled(x,
                               furthest_squared(PairFilter(x, nullptr, Metric::kSquaredEuclidean), x.size(1), block));
  CsrTensors v = expanded_sets(x, nn, reciprocal_sets(neighbour.data(), rows, columns, columns),
                               reciprocal_sets(neighbour.data(), rows, columns, half_width(columns - 1)));
  weigh(scaled, view(v), std::get<2>(v).mutable_data_ptr<float>());
  if (k2 > 1) v = query_expansion(x, nn, neighbour.data(), view(v), k2);

  write_distances(scaled, queries, gallery, static_cast<float>(lambda), out);
  add_jaccard(view(v), queries, static_cast<float>(1 - lambda), out);
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ise_fast, CPU, m) {
  m.impl("re_ranking", OPERATOR(re_ranking));
}

}  // namespace ise_fast
