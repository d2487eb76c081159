// The rows of a table most similar to each feature, exact, from approximate products.
#pragma once

#include <algorithm>

#include "online_softmax.cuh"
#include "pair_sums.cuh"
#include "select.cuh"

namespace ise_fast {
namespace {

// By one block: which of the columns j < count with allowed(j) are the `wanted` most similar to the feature, by (exact
// similarity falling, index rising); put(j, place, similarity) for each, places in ascending order of j. Returns how
// many, at most `wanted`. z: approximate products, |z - exact| <= error; keys: scratch like z. See csrc/cpu/largest.h.
// shared: kBins numbers.
//
// The wanted-th best approximate product is no worse than the wanted-th of what is best for each thread: with this only
// a short list of the row is left, and the rest looks at the list.
template <class Allowed, class Put>
__device__ int64_t hardest_of_row(const float* z, const float* feature, const float* table, uint64_t* keys,
                                  int64_t count, int64_t d, int64_t wanted, double error, unsigned* shared,
                                  Allowed allowed, Put put) {
  constexpr int64_t kFew = kHeadThreads * 3 / 4;  // the list grows when more threads' best are wanted
  const auto key_of = [&](int64_t j) {
    return allowed(j) ? descending_key(z[j], static_cast<uint32_t>(j)) : kWorstKey;
  };
  const auto listed_key = [&](int64_t p) { return keys[p]; };
  const auto threshold = [&](uint64_t key) {
    return key == kWorstKey ? -static_cast<double>(INFINITY) : descending_value(key) - 2 * error;
  };
  uint64_t best = kWorstKey;
  for (int64_t j = threadIdx.x; wanted <= kFew && j < count; j += kHeadThreads) best = Min{}(best, key_of(j));
  const double low = threshold(wanted <= kFew ? kth_key(kHeadThreads, wanted, shared, [&](int64_t) { return best; })
                                              : kth_key(count, wanted, shared, key_of));
  const int64_t listed = compact(
      count, shared, [&](int64_t j) { return allowed(j) && !(z[j] < low); },
      [&](int64_t j, int64_t place) { keys[place] = descending_key(z[j], static_cast<uint32_t>(j)); });
  const double lowest = threshold(kth_key(listed, wanted, shared, listed_key));

  const int lane = threadIdx.x % kWarpSize;
  for (int64_t chunk = 0; chunk < listed; chunk += kHeadThreads) {
    const int64_t p = chunk + lane * kHeadWarps + threadIdx.x / kWarpSize;  // the warps take about as many
    const uint64_t key = p < listed ? keys[p] : kWorstKey;
    const bool candidate = p < listed && !(descending_value(key) < lowest);
    double exact = 0;
    for (unsigned votes = __ballot_sync(kWholeWarp, candidate); votes;) {
      const float* partner[kPartners];
      int of[kPartners];
#pragma unroll
      for (int t = 0; t < kPartners; ++t) {
        of[t] = votes ? __ffs(static_cast<int>(votes)) - 1 : of[0];  // where there are fewer, the first again
        votes &= votes - 1;
        partner[t] = table + __shfl_sync(kWholeWarp, key_index(key), of[t]) * d;
      }
      double sum[kPartners];
      sum_partners<InnerProduct>(feature, partner, d, sum);
#pragma unroll
      for (int t = 0; t < kPartners; ++t) exact = lane == of[t] ? sum[t] : exact;
    }
    if (p < listed) {
      keys[p] = candidate ? descending_key(static_cast<float>(exact), key_index(key)) : kWorstKey;
    }
  }
  __syncthreads();
  const uint64_t worst = kth_key(listed, wanted, shared, listed_key);
  return compact(
      listed, shared, [&](int64_t p) { return keys[p] <= worst && keys[p] != kWorstKey; },
      [&](int64_t p, int64_t place) { put(key_index(keys[p]), place, descending_value(keys[p])); });
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
