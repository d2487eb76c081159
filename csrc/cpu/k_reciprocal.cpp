// k-reciprocal encoding (Zhong et al. 2017, equations 1-11), in the variant that unsupervised re-ID uses.
//
//   R(i)    = { j in nn[i] : i in nn[j] }                     reciprocal set
//   H(i)    = the same with the first half_width(k1) columns  half set
//   R*(i)   = R(i) and every H(c), c in R(i), of which more than two thirds lie in R(i)
//   V(i,j)  = softmax over j in R*(i) of -(2 - 2 x_i.x_j)
//   V'(i)   = mean of V(nn[i][r]), r = 0 .. k2 - 1
#include "k_reciprocal.h"

#include <vector>

#include "exact_distance.h"
#include "nearby.h"
#include "operator.h"

namespace ise_fast {
namespace {

// x_i.x_j for every entry. The product is symmetric to the bit, so (i, j) with j < i is taken from row j where it is
// stored there too.
std::vector<double> inner_products(const Tensor& x, const Csr& star) {
  const int64_t d = x.size(1);
  const auto* feature = x.const_data_ptr<float>();
  std::vector<double> product(star.indptr[star.rows]);
  const std::vector<int32_t> order =
      nearby_order(star.rows, [&](int64_t i, const auto& visit) { std::for_each(star.begin(i), star.end(i), visit); });
  parallel_rows(star.rows, [&](const auto& for_rows) {
    std::vector<int64_t> places;
    std::vector<int32_t> columns;
    std::vector<double> found;
    for_rows([&](int64_t position) {
      const int64_t i = order[position];
      places.clear();
      columns.clear();
      for (int64_t p = star.indptr[i]; p < star.indptr[i + 1]; ++p) {
        const int32_t j = star.indices[p];
        if (j < i && star.find(j, i) >= 0) continue;
        places.push_back(p);
        columns.push_back(j);
      }
      found.resize(columns.size());
      dots(feature + i * d, feature, d, columns.data(), columns.size(), found.data());
      for (size_t t = 0; t < places.size(); ++t) product[places[t]] = found[t];
    });
  });
  parallel_rows(star.rows, [&](const auto& for_rows) {
    for_rows([&](int64_t i) {
      for (int64_t p = star.indptr[i]; p < star.indptr[i + 1] && star.indices[p] < i; ++p) {
        const int64_t mirror = star.find(star.indices[p], i);
        if (mirror >= 0) product[p] = product[mirror];
      }
    });
  });
  return product;
}

void check_finite(const Tensor& x, const char* name) {
  const int64_t d = x.size(1);
  const auto* feature = x.const_data_ptr<float>();
  parallel_for(0, x.size(0), 64, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin * d; p < end * d; ++p) {
      check(std::isfinite(feature[p]), name, ": expected finite values, got NaN or infinity in row ", p / d);
    }
  });
}

CsrTensors k_reciprocal_encoding(const Tensor& features, const Tensor& neighbours, int64_t k2) {
  check_k_reciprocal_encoding(features, neighbours, k2);
  const Tensor x = row_major(features), nn = row_major(neighbours);
  const int64_t rows = nn.size(0), k1 = nn.size(1);
  check_finite(x, "x");
  const std::vector<int32_t> neighbour = narrow_neighbours(nn);
  const Lists full = reciprocal_sets(neighbour.data(), rows, k1, k1);
  const Lists half = reciprocal_sets(neighbour.data(), rows, k1, half_width(k1));
  const CsrTensors v = expanded_sets(x, nn, full, half);
  const std::vector<double> product = inner_products(x, view(v));
  softmax_rows(product.data(), std::get<0>(v).const_data_ptr<int64_t>(), rows,
               std::get<2>(v).mutable_data_ptr<float>());
  // Not an expansion by one row: a row need not be its own nearest neighbour.
  return k2 == 1 ? v : query_expansion(x, nn, neighbour.data(), view(v), k2);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ise_fast, CPU, m) {
  m.impl("k_reciprocal_encoding", OPERATOR(k_reciprocal_encoding));
}

}  // namespace ise_fast
