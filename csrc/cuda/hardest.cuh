// The rows of a table most similar to each feature, exact, from approximate products.
#pragma once

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

}  // namespace
}  // namespace ise_fast
