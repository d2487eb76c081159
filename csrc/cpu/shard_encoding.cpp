// The k-reciprocal encoding (k_reciprocal.cpp) for a part of the rows, where other processes hold the rest: inner
// products and distances to a block of rows at hand, sets from the neighbours of all rows, means of rows from anywhere.
//
// Nothing here is as long as all rows: sets are short lists, and memory is that of the rows asked for.
#include <vector>

#include "../check_shards.h"
#include "exact_distance.h"
#include "k_reciprocal.h"
#include "operator.h"
#include "shard_rows.h"

namespace ise_fast {
namespace {

// x_i . y_j or |x_i - y_j|^2 for every entry (i, j) of a pattern, in float64.
Tensor pattern_products(const Tensor& x, const Tensor& y, const Tensor& indptr, const Tensor& indices,
                        std::string kind) {
  const bool dot = check_pattern_products(x, y, indptr, indices, kind);
  const Tensor left = row_major(x), right = row_major(y), columns = row_major(indices);
  const std::vector<int64_t> offset = checked_offsets(row_major(indptr), columns.size(0));
  const int64_t rows = x.size(0), others = y.size(0), d = x.size(1);
  Tensor product = new_tensor(left, {columns.size(0)}, ScalarType::Double);
  auto* out = product.mutable_data_ptr<double>();
  const auto* index = columns.const_data_ptr<int32_t>();
  const auto *query = left.const_data_ptr<float>(), *base = right.const_data_ptr<float>();
  parallel_rows(rows, [&](const auto& for_rows) {
    std::vector<int32_t> own;
    for_rows([&](int64_t i) {
      const int64_t count = offset[i + 1] - offset[i];
      own.resize(count);
      for (int64_t p = 0; p < count; ++p) own[p] = checked_row(index + offset[i] + p, others, "indices", i);
      if (dot) {
        dots(query + i * d, base, d, own.data(), count, out + offset[i]);
      } else {
        squared_distances(query + i * d, base, d, own.data(), count, out + offset[i]);
      }
    });
  });
  return product;
}

Tensor softmax_rows_of(const Tensor& product, const Tensor& indptr) {
  check_softmax_rows(product, indptr);
  const Tensor source = row_major(product);
  const int64_t nnz = source.size(0);
  const std::vector<int64_t> offset = checked_offsets(row_major(indptr), nnz);
  const auto* from = source.const_data_ptr<double>();
  const std::vector<double> own(from, from + nnz);
  for (int64_t p = 0; p < nnz; ++p) {
    check(std::isfinite(own[p]), "product: expected finite values, got NaN or infinity at ", p);
  }
  Tensor values = new_tensor(source, {nnz}, ScalarType::Float);
  softmax_rows(own.data(), offset.data(), static_cast<int64_t>(offset.size()) - 1, values.mutable_data_ptr<float>());
  return values;
}

// The neighbours of all rows, each checked where it is read.
class Neighbours {
public:
  explicit Neighbours(const Tensor& nn)
      : nn_(row_major(nn)), rows_(nn.size(0)), k_(nn.size(1)), data_(nn_.const_data_ptr<int32_t>()) {}

  int32_t at(int64_t i, int64_t r) const { return checked_row(data_ + i * k_ + r, rows_, "nn", i); }
  // Whether row i and its neighbour at place r are among the first `width` of each other, which needs r < width.
  bool mutual(int64_t i, int64_t r, int64_t width) const {
    const int32_t* back = data_ + at(i, r) * k_;
    bool found = false;
    for (int64_t s = 0; s < width; ++s) found |= back[s] == i;
    return found;
  }
  int64_t k1() const { return k_; }

private:
  Tensor nn_;
  int64_t rows_, k_;
  const int32_t* data_;
};

// Bit r of row i: i is among the first `width` of its r-th neighbour.
Tensor reciprocal_bits(const Tensor& nn, int64_t begin, int64_t end, int64_t width) {
  check_reciprocal_bits(nn, begin, end, width);
  const Neighbours neighbours(nn);
  const int64_t bytes = (width + 7) / 8;
  Tensor bits = new_tensor(nn, {end - begin, bytes}, ScalarType::Byte);
  auto* out = bits.mutable_data_ptr<uint8_t>();
  std::fill(out, out + (end - begin) * bytes, uint8_t{0});
  parallel_rows(end - begin, [&](const auto& for_rows) {
    for_rows([&](int64_t row) {
      for (int64_t r = 0; r < width; ++r) {
        if (neighbours.mutual(begin + row, r, width)) out[row * bytes + r / 8] |= static_cast<uint8_t>(1 << r % 8);
      }
    });
  });
  return bits;
}

// R*(i) of rows [begin, end), columns ascending. bits: reciprocal_bits of all rows at `width`, which say what H is.
std::tuple<Tensor, Tensor> expanded_sets_of(const Tensor& nn, const Tensor& bits, int64_t width, int64_t begin,
                                            int64_t end) {
  check_expanded_sets(nn, bits, width, begin, end);
  const Neighbours neighbours(nn);
  const Tensor flags = row_major(bits);
  const auto* flag = flags.const_data_ptr<uint8_t>();
  const int64_t bytes = (width + 7) / 8;
  const auto [indptr, indices, values] =
      assemble_rows(new_tensor(nn, {0}, ScalarType::Long), new_tensor(nn, {0}, ScalarType::Float), begin, end, [&] {
        return [&, reciprocal = std::vector<int32_t>(), half = std::vector<int32_t>(), all = std::vector<int32_t>()](
                   int64_t i, RowSink& sink) mutable {
          reciprocal.clear();
          for (int64_t r = 0; r < neighbours.k1(); ++r) {
            if (neighbours.mutual(i, r, neighbours.k1())) reciprocal.push_back(neighbours.at(i, r));
          }
          std::sort(reciprocal.begin(), reciprocal.end());
          all = reciprocal;
          for (const int32_t c : reciprocal) {
            half.clear();
            int64_t common = 0;
            for (int64_t r = 0; r < width; ++r) {
              if (!(flag[c * bytes + r / 8] >> r % 8 & 1)) continue;
              half.push_back(neighbours.at(c, r));
              common += std::binary_search(reciprocal.begin(), reciprocal.end(), half.back());
            }
            if (joins(common, static_cast<int64_t>(half.size()))) all.insert(all.end(), half.begin(), half.end());
          }
          std::sort(all.begin(), all.end());
          all.erase(std::unique(all.begin(), all.end()), all.end());
          sink.indices.insert(sink.indices.end(), all.begin(), all.end());
          sink.values.resize(sink.indices.size());
        };
      });
  return {indptr, indices};
}

// Row i: the mean of the rows of v that it names, added in that order, divided once.
CsrTensors average_rows(const Tensor& indptr, const Tensor& indices, const Tensor& values, const Tensor& neighbours) {
  check_average_rows(indptr, indices, values, neighbours);
  const Tensor columns = row_major(indices), weights = row_major(values), named = row_major(neighbours);
  const std::vector<int64_t> offset = checked_offsets(row_major(indptr), columns.size(0));
  const auto* column = columns.const_data_ptr<int32_t>();
  const auto* weight = weights.const_data_ptr<float>();
  const auto* name = named.const_data_ptr<int32_t>();
  const int64_t k2 = named.size(1), rows = static_cast<int64_t>(offset.size()) - 1;
  const auto count = static_cast<float>(k2);
  return assemble_rows(new_tensor(columns, {0}, ScalarType::Long), weights, 0, named.size(0), [&] {
    // (column, order of arrival) as one number, and the weight.
    return [&, found = std::vector<std::pair<uint64_t, float>>()](int64_t i, RowSink& sink) mutable {
      found.clear();
      for (int64_t r = 0; r < k2; ++r) {
        const int32_t j = checked_row(name + i * k2 + r, rows, "neighbours", i);
        for (int64_t p = offset[j]; p < offset[j + 1]; ++p) {
          const auto f = static_cast<uint64_t>(static_cast<uint32_t>(load_once(column + p)));
          found.emplace_back(f << 32 | found.size(), load_once(weight + p));
        }
      }
      std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
      for (size_t p = 0; p < found.size();) {
        const uint64_t f = found[p].first >> 32;
        float total = 0.0f;
        for (; p < found.size() && found[p].first >> 32 == f; ++p) total += found[p].second;
        sink.indices.push_back(static_cast<int32_t>(f));
        sink.values.push_back(total / count);
      }
    };
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ise_fast, CPU, m) {
  m.impl("pattern_products", OPERATOR(pattern_products));
  m.impl("softmax_rows", OPERATOR(softmax_rows_of));
  m.impl("reciprocal_bits", OPERATOR(reciprocal_bits));
  m.impl("expanded_sets", OPERATOR(expanded_sets_of));
  m.impl("average_rows", OPERATOR(average_rows));
}

}  // namespace ise_fast
