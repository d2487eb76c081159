// The steps of the k-reciprocal encoding that re-ranking shares: the sets and the query expansion.
//
//   R(i)  = { j in nn[i] : i in nn[j] }                         reciprocal set
//   H(i)  = the same with the first `half` columns of nn        half set
//   R*(i) = R(i) and every H(c), c in R(i), of which more than two thirds lie in R(i)
//   V'(i) = mean of V(nn[i][r]), r = 0 .. k2 - 1
#pragma once

#include <vector>

#include "../math/exp.h"
#include "../math/k_reciprocal.h"
#include "csr.h"

namespace ise_fast {

// One short list per row, at most `stride` long.
struct Lists {
  int64_t stride;
  std::vector<int32_t> items;
  std::vector<int32_t> sizes;

  Lists(int64_t rows, int64_t stride) : stride(stride), items(rows * stride), sizes(rows) {}
  const int32_t* begin(int64_t i) const { return items.data() + i * stride; }
  const int32_t* end(int64_t i) const { return begin(i) + sizes[i]; }
};

// Neighbours in 32 bits, each checked to be a row.
inline std::vector<int32_t> narrow_neighbours(const Tensor& nn) {
  const int64_t rows = nn.size(0), k = nn.size(1);
  const auto* wide = nn.const_data_ptr<int64_t>();
  std::vector<int32_t> narrow(rows * k);
  parallel_rows(rows, [&](const auto& for_rows) {
    for_rows([&](int64_t i) {
      for (int64_t p = i * k; p < (i + 1) * k; ++p) {
        const int64_t j = load_once(wide + p);
        check(0 <= j && j < rows, "nn: expected 0 to ", rows - 1, ", got ", j, " in row ", i);
        narrow[p] = static_cast<int32_t>(j);
      }
    });
  });
  return narrow;
}

// Row i: those of its first `width` neighbours that have i among their first `width`.
inline Lists reciprocal_sets(const int32_t* nn, int64_t rows, int64_t k1, int64_t width) {
  Lists sets(rows, width);
  parallel_rows(rows, [&](const auto& for_rows) {
    for_rows([&](int64_t i) {
      int32_t* out = sets.items.data() + i * width;
      int32_t size = 0;
      for (int64_t r = 0; r < width; ++r) {
        const int32_t* back = nn + nn[i * k1 + r] * k1;
        bool mutual = false;
        for (int64_t s = 0; s < width; ++s) mutual |= back[s] == i;
        out[size] = nn[i * k1 + r];
        size += mutual;
      }
      sets.sizes[i] = size;
    });
  });
  return sets;
}

// R*(i) as rows of a sparse matrix, columns ascending, values not yet set.
inline CsrTensors expanded_sets(const Tensor& x, const Tensor& nn, const Lists& full, const Lists& half) {
  const int64_t rows = nn.size(0);
  return assemble_rows(nn, x, 0, rows, [&] {
    // 2 i + 1 marks R(i), 2 i + 2 what was added to it.
    return [&, mark = std::vector<uint32_t>(rows)](int64_t i, RowSink& sink) mutable {
      const auto in_r = static_cast<uint32_t>(2 * i + 1);
      const size_t start = sink.indices.size();
      for (const int32_t* j = full.begin(i); j < full.end(i); ++j) {
        if (mark[*j] != in_r) sink.indices.push_back(*j);
        mark[*j] = in_r;
      }
      for (const int32_t* c = full.begin(i); c < full.end(i); ++c) {
        int64_t common = 0;
        for (const int32_t* h = half.begin(*c); h < half.end(*c); ++h) common += mark[*h] == in_r;
        if (!joins(common, half.sizes[*c])) continue;
        for (const int32_t* h = half.begin(*c); h < half.end(*c); ++h) {
          if (mark[*h] >= in_r) continue;
          sink.indices.push_back(*h);
          mark[*h] = in_r + 1;
        }
      }
      std::sort(sink.indices.begin() + start, sink.indices.end());
      sink.values.resize(sink.indices.size());
    };
  });
}

// Softmax of -(2 - 2 x_i.x_j) over each row, from the inner products. The maximum is subtracted in float64, so the
// exponent is never infinite minus infinite; the float32 numerators are added in float64, in ascending column order.
inline void softmax_rows(const double* product, const int64_t* indptr, int64_t rows, float* v) {
  parallel_rows(rows, [&](const auto& for_rows) {
    for_rows([&](int64_t i) {
      const int64_t begin = indptr[i], end = indptr[i + 1];
      if (begin == end) return;
      const double best = *std::max_element(product + begin, product + end);
      double sum = 0.0;
      for (int64_t p = begin; p < end; ++p) {
        v[p] = exp_nonpositive(static_cast<float>(2.0 * (product[p] - best)));
        sum += v[p];
      }
      for (int64_t p = begin; p < end; ++p) v[p] = static_cast<float>(v[p] / sum);
    });
  });
}

// Row i: the mean of the rows of v of its k2 nearest neighbours, added in rank order, divided once.
inline CsrTensors query_expansion(const Tensor& x, const Tensor& nn, const int32_t* neighbour, const Csr& v,
                                  int64_t k2) {
  const int64_t k1 = nn.size(1);
  const auto count = static_cast<float>(k2);
  return assemble_rows(nn, x, 0, v.rows, [&] {
    return [&, total = std::vector<float>(v.rows), seen = std::vector<bool>(v.rows)](int64_t i, RowSink& sink) mutable {
      const size_t start = sink.indices.size();
      for (int64_t r = 0; r < k2; ++r) {
        const int64_t j = neighbour[i * k1 + r];
        for (int64_t p = v.indptr[j]; p < v.indptr[j + 1]; ++p) {
          const int32_t f = v.indices[p];
          if (!seen[f]) sink.indices.push_back(f);
          seen[f] = true;
          total[f] += v.values[p];
        }
      }
      std::sort(sink.indices.begin() + start, sink.indices.end());
      for (size_t p = start; p < sink.indices.size(); ++p) {
        const int32_t f = sink.indices[p];
        sink.values.push_back(total[f] / count);
        total[f] = 0.0f;
        seen[f] = false;
      }
    };
  });
}

}  // namespace ise_fast
