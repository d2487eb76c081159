// Sparse matrices in compressed rows on the CPU: views, validation, parallel assembly.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <tuple>
#include <vector>

#include "../check_graph.h"
#include "changed.h"
#include "parallel.h"
#include "tensors.h"

namespace ise_fast {

template <class Index, class Value>
struct CsrView {
  int64_t rows;
  const int64_t* indptr;
  const Index* indices;
  const Value* values;

  const Index* begin(int64_t i) const { return indices + indptr[i]; }
  const Index* end(int64_t i) const { return indices + indptr[i + 1]; }
  // The column of entry p, once more in range: the values were checked when the call began.
  Index column(int64_t p) const {
    const Index j = load_once(indices + p);
    if (static_cast<uint64_t>(j) >= static_cast<uint64_t>(rows)) [[unlikely]]
      throw_changed("indices");
    return j;
  }
  // Position of (i, j) in `indices`, or -1.
  int64_t find(int64_t i, Index j) const {
    const Index* at = std::lower_bound(begin(i), end(i), j);
    return at != end(i) && *at == j ? at - indices : -1;
  }
};

using Csr = CsrView<int32_t, float>;

inline Csr view(const CsrTensors& csr) {
  const auto& [indptr, indices, values] = csr;
  return {indptr.size(0) - 1, indptr.const_data_ptr<int64_t>(), indices.const_data_ptr<int32_t>(),
          values.const_data_ptr<float>()};
}

// With offsets of its own, which nobody can change.
template <class Index, class Value>
struct CheckedCsr : CsrView<Index, Value> {
  std::vector<int64_t> offsets;

  CheckedCsr(const Tensor& indptr, const Tensor& indices, const Tensor& values)
      : offsets(indptr.const_data_ptr<int64_t>(), indptr.const_data_ptr<int64_t>() + indptr.size(0)) {
    this->rows = indptr.size(0) - 1;
    this->indptr = offsets.data();
    this->indices = indices.const_data_ptr<Index>();
    this->values = values.const_data_ptr<Value>();
  }
  CheckedCsr(CheckedCsr&&) = default;
};

// A square matrix with ascending columns in [0, rows) and finite values >= 0, or an exception that names the fault.
template <class Index, class Value>
CheckedCsr<Index, Value> checked_csr(const Tensor& indptr, const Tensor& indices, const Tensor& values) {
  CheckedCsr<Index, Value> csr(indptr, indices, values);
  const int64_t rows = csr.rows;
  for (int64_t i = 0; i < rows; ++i) check_csr_offsets(csr.indptr[i], csr.indptr[i + 1], i);
  check_csr_ends(csr.indptr[0], csr.indptr[rows], indices.size(0));

  std::atomic<int64_t> bad_row{rows};  // the first one, whichever thread finds it
  parallel_rows(rows, [&](const auto& for_rows) {
    for_rows([&](int64_t i) {
      bool good = true;
      int64_t last = -1;
      for (int64_t p = csr.indptr[i]; p < csr.indptr[i + 1]; ++p) {
        good &= last < csr.indices[p] && csr.values[p] >= 0 && csr.values[p] <= std::numeric_limits<Value>::max();
        last = csr.indices[p];
      }
      if (good && last < rows) return;
      int64_t first = bad_row.load();
      while (i < first && !bad_row.compare_exchange_weak(first, i)) {
      }
    });
  });
  const int64_t i = bad_row;
  if (i == rows) return csr;
  int64_t last = -1;
  for (int64_t p = csr.indptr[i]; p < csr.indptr[i + 1]; ++p) {
    const int64_t column = csr.indices[p];
    check_csr_entry(column, last, csr.values[p], rows, i);
    last = column;
  }
  throw_changed("indices or values");
}

// What rows are appended to.
struct RowSink {
  std::vector<int32_t> indices;
  std::vector<float> values;
};

// How many entries all threads together may append: features that have collapsed would fill the memory with N^2 pairs.
struct PairLimit {
  int64_t most;
  double eps;  // for the message
  std::atomic<int64_t> found{0};

  bool passed() const { return found.load(std::memory_order_relaxed) > most; }
  void add(int64_t entries) { found.fetch_add(entries, std::memory_order_relaxed); }
};

// Rows [begin, end) of a sparse matrix. make() is called once per thread and returns row(i, sink), which appends row i.
// Threads stop soon after `limit`, if there is one, is passed; this is then refused.
template <class Make>
CsrTensors assemble_rows(const Tensor& like_i64, const Tensor& like_f32, int64_t begin, int64_t end, const Make& make,
                         PairLimit* limit = nullptr) {
  const int64_t rows = end - begin, blocks = (rows + kRowsPerBlock - 1) / kRowsPerBlock;
  Tensor indptr = new_tensor(like_i64, {rows + 1});
  auto* offset = indptr.mutable_data_ptr<int64_t>();
  std::vector<RowSink> sinks(blocks);
  parallel_blocks(blocks, [&](Blocks& next) {
    auto append = make();
    RowSink sink;  // grows once per thread; its exact copy is kept
    for (int64_t block = next(); block < blocks; block = next()) {
      sink.indices.clear();
      sink.values.clear();
      const int64_t last = std::min(rows, (block + 1) * kRowsPerBlock);
      for (int64_t r = block * kRowsPerBlock; r < last && next.proceed() && !(limit && limit->passed()); ++r) {
        const size_t before = sink.indices.size();
        append(begin + r, sink);
        offset[r + 1] = static_cast<int64_t>(sink.indices.size() - before);
        if (limit) limit->add(offset[r + 1]);
      }
      sinks[block] = sink;
    }
  });
  if (limit) check_pair_count(limit->found, limit->most, limit->eps);
  offset[0] = 0;
  for (int64_t r = 0; r < rows; ++r) offset[r + 1] += offset[r];

  Tensor indices = new_tensor(like_i64, {offset[rows]}, ScalarType::Int);
  Tensor values = new_tensor(like_f32, {offset[rows]});
  auto* index = indices.mutable_data_ptr<int32_t>();
  auto* value = values.mutable_data_ptr<float>();
  parallel_blocks(blocks, [&](Blocks& next) {
    for (int64_t block = next(); block < blocks; block = next()) {
      const RowSink sink = std::move(sinks[block]);
      std::copy(sink.indices.begin(), sink.indices.end(), index + offset[block * kRowsPerBlock]);
      std::copy(sink.values.begin(), sink.values.end(), value + offset[block * kRowsPerBlock]);
    }
  });
  return {indptr, indices, values};
}

}  // namespace ise_fast
