// The rows of a table most similar to each feature, exact, from approximate products.
#pragma once

#include <algorithm>

#include "online_softmax.cuh"
#include "select.cuh"

namespace ise_fast {
namespace {

// By one block: which of the columns j < count with allowed(j) are the `wanted` most similar to the feature, by (exact
// similarity falling, index rising); put(j, place, similarity) for each, places in ascending order of j. Returns how
// many, at most `wanted`. z: approximate products, |z - exact| <= error; keys: scratch like z. See csrc/cpu/largest.h.
// shared: 256 numbers.
template <class Allowed, class Put>
__device__ int64_t hardest_of_row(const float* z, const float* feature, const float* table, uint64_t* keys,
                                  int64_t count, int64_t d, int64_t wanted, double error, unsigned* shared,
                                  Allowed allowed, Put put) {
  const uint64_t last = kth_key(count, wanted, shared, [&](int64_t j) {
    return allowed(j) ? descending_key(z[j], static_cast<uint32_t>(j)) : kWorstKey;
  });
  const bool few = last == kWorstKey;
  const double threshold = few ? 0.0 : descending_value(last) - 2 * error;
  const auto candidate = [&](int64_t j) { return allowed(j) && (few || !(z[j] < threshold)); };
  for (int64_t chunk = threadIdx.x / kWarpSize * kWarpSize; chunk < count; chunk += kHeadThreads) {
    const int64_t j = chunk + threadIdx.x % kWarpSize;
    const bool mine = j < count && candidate(j);
    if (j < count && !mine) keys[j] = kWorstKey;
    unsigned votes = __ballot_sync(kWholeWarp, mine);
    while (votes) {
      const int64_t c = chunk + __ffs(static_cast<int>(votes)) - 1;
      const float exact = static_cast<float>(warp_dot(feature, table + c * d, d));
      if (threadIdx.x % kWarpSize == 0) keys[c] = descending_key(exact, static_cast<uint32_t>(c));
      votes &= votes - 1;
    }
  }
  __syncthreads();
  const uint64_t worst = kth_key(count, wanted, shared, [&](int64_t j) { return keys[j]; });
  return compact(
      count, shared, [&](int64_t j) { return keys[j] <= worst && keys[j] != kWorstKey; },
      [&](int64_t j, int64_t place) { put(j, place, descending_value(keys[j])); });
}

// The bits of the length of a table's longest row (length_of_bits), rounded up: one number.
inline Tensor longest_row(const Tensor& table, cudaStream_t stream) {
  Tensor longest = device_zeros(table, {1}, ScalarType::Long);
  const int64_t rows = table.size(0);
  LAUNCH(longest_centroid, blocks_for(rows, kHeadWarps), kHeadThreads, 0, stream, table.const_data_ptr<float>(),
         nullptr, reinterpret_cast<unsigned*>(longest.mutable_data_ptr<int64_t>()), rows, table.size(1));
  return longest;
}

// Some features against all rows of a table, for hardest_of_row.
struct ProductBlock {
  int64_t begin, count;     // of the features
  float* products;          // [count, rows of the table]
  uint64_t* keys;           // as many, scratch
  const unsigned* longest;  // bits of the length of the table's longest row
  double error;             // of the products, per length of both rows
};

// run(block) for blocks of features whose products fit into little memory. The table has at least one row.
template <class Run>
void multiply_by_blocks(const Tensor& features, const Tensor& table, cudaStream_t stream, const Run& run) {
  constexpr int64_t kScratch = int64_t{1} << 24;
  const int64_t rows = features.size(0), columns = table.size(0);
  const Tensor longest = longest_row(table, stream);
  const int64_t height = std::min(rows, std::max<int64_t>(kScratch / columns, 16));
  const Parts parts = filter_parts(table);
  const Factor left = factor_of(features, parts), right = factor_of(table, parts);
  Tensor products = device_empty(features, {height, columns});
  const Words<uint64_t> keys(height * columns, features);
  for (int64_t begin = 0; begin < rows; begin += height) {
    const int64_t count = std::min(height, rows - begin);
    Tensor z = torch::stable::narrow(products, 0, 0, count);
    multiply_transposed(z, left.part(begin, count), right);
    run(ProductBlock{begin, count, products.mutable_data_ptr<float>(), keys.data(),
                     reinterpret_cast<const unsigned*>(longest.const_data_ptr<int64_t>()), right.error()});
  }
}

}  // namespace
}  // namespace ise_fast
