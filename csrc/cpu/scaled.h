// Scalars in and out of the losses, and what their operators say about products that are not finite.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <cstdint>
#include <limits>

#include "head.h"
#include "rows.h"

namespace ise_fast {

template <class T>
Tensor scalar(const Tensor& like, double value) {
  Tensor result = new_tensor(like, {});
  *result.mutable_data_ptr<T>() = static_cast<T>(value);
  return result;
}

inline double scalar_value(const Tensor& tensor) {
  return tensor.scalar_type() == ScalarType::Double ? *tensor.const_data_ptr<double>()
                                                    : *tensor.const_data_ptr<float>();
}

// a x scale, row by row.
template <class T>
Tensor scaled(const Tensor& a, double scale) {
  Tensor out = new_tensor(a, {a.size(0), a.size(1)});
  const int64_t d = a.size(1);
  const T* const from = a.const_data_ptr<T>();
  T* const to = out.mutable_data_ptr<T>();
  parallel_for(0, a.size(0), 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Term<T> term = {static_cast<T>(scale), from + i * d};
      combine(to + i * d, false, &term, 1, 0, d);
    }
  });
  return out;
}

// Names the row with NaN or infinity behind a product that is not finite.
template <class T>
void refuse_products(const Tensor& features, const Tensor& table, const char* table_name) {
  row_lengths(features.const_data_ptr<T>(), features.size(0), features.size(1), "features");
  row_lengths(table.const_data_ptr<T>(), table.size(0), table.size(1), table_name);
  check(false, "features: expected products with ", table_name, " that ", dtype_name(features.scalar_type()),
        " can hold, got larger ones");
}

}  // namespace ise_fast
