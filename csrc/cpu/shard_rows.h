// What the operators on a part of the rows share: offsets of their own, and indices checked where they are read, so
// that another thread that writes into an argument meanwhile leads nobody astray.
#pragma once

#include <vector>

#include "csr.h"

namespace ise_fast {

// A copy of [rows + 1] offsets that start at 0, never fall and end at nnz.
inline std::vector<int64_t> checked_offsets(const Tensor& indptr, int64_t nnz) {
  const auto* from = indptr.const_data_ptr<int64_t>();
  std::vector<int64_t> offset(from, from + indptr.size(0));
  for (size_t i = 0; i + 1 < offset.size(); ++i) {
    check_csr_offsets(offset[i], offset[i + 1], static_cast<int64_t>(i));
  }
  check_csr_ends(offset.front(), offset.back(), nnz);
  return offset;
}

// One reading of an index that must be below `rows`.
inline int32_t checked_row(const int32_t* address, int64_t rows, const char* name, int64_t i) {
  const int32_t j = load_once(address);
  if (j < 0 || j >= rows) [[unlikely]]
    check(false, name, ": expected 0 to ", rows - 1, ", got ", j, " in row ", i);
  return j;
}

}  // namespace ise_fast
