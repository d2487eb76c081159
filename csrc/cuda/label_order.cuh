// The order of rows by their labels.
#pragma once

#include "cub.h"
#include "launch.h"

namespace ise_fast {
namespace {

constexpr int kLabelThreads = 256;

__global__ void label_keys(const int64_t* labels, uint64_t* keys, uint32_t* rows, int64_t n) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kLabelThreads + threadIdx.x;
  if (i >= n) return;
  keys[i] = static_cast<uint64_t>(labels[i]);
  rows[i] = static_cast<uint32_t>(i);
}

// order [n]: the rows by label, those of one label as they came; sorted [n]: their labels, from 0 to 2^last_bit - 1.
// keys and rows [n] are scratch.
inline void sort_by_label(const int64_t* labels, uint64_t* keys, uint32_t* rows, uint64_t* sorted, uint32_t* order,
                          int64_t n, const torch::stable::Tensor& like, cudaStream_t stream, int last_bit) {
  LAUNCH(label_keys, blocks_for(n, kLabelThreads), kLabelThreads, 0, stream, labels, keys, rows, n);
  sort_pairs(keys, sorted, rows, order, n, like, stream, 0, last_bit);
}

}  // namespace
}  // namespace ise_fast
