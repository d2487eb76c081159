// Scans and sorts of the whole device, by CUB; scratch comes from PyTorch's allocator. Every result is the same on
// every run: integer scans, and radix sorts that keep the order of equal keys.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>

#include "device.h"

namespace ise_fast {

// out[i] = in[0] + ... + in[i - 1]. In place is allowed. For offsets of n rows give n + 1 counts, the last one 0: then
// out[n] is the total.
void exclusive_sum(const int64_t* in, int64_t* out, int64_t n, const torch::stable::Tensor& like, cudaStream_t stream);

// Ascending, equal keys in the order they came. Only bits [first_bit, last_bit) of the keys count: fewer bits are
// faster. in and out must not overlap. `like` says on which device to take scratch.
void sort_keys(const uint64_t* in, uint64_t* out, int64_t n, const torch::stable::Tensor& like, cudaStream_t stream,
               int first_bit = 0, int last_bit = 64);
void sort_pairs(const uint64_t* keys_in, uint64_t* keys_out, const uint32_t* values_in, uint32_t* values_out, int64_t n,
                const torch::stable::Tensor& like, cudaStream_t stream, int first_bit = 0, int last_bit = 64);

}  // namespace ise_fast
