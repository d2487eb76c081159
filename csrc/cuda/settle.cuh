// From the candidates of a query to its nearest rows: exact distances of those that may belong to the answer, and
// whether any other row could. The candidates are ascending (score, index) keys, their last score the limit of what was
// not kept. A block a query, `pitch` keys from one to the next.
#pragma once

#include "../math/ordered_key.h"
#include "exact_distance.cuh"

namespace ise_fast {
namespace {

// Queries without certificate, in any order, and how many exact distances were computed (null: not counted).
struct Failures {
  int64_t* list;
  unsigned long long *count, *compared;
};

// The candidates of one query.
struct Settling {
  const uint64_t* keys;  // [kept]
  int kept;
  double* exact;  // [kept], shared memory: distances of those that were compared
  int64_t i, k;

  __device__ double score(int c) const { return static_cast<double>(ascending_value(keys[c])); }

  // How many of the candidates have a score of at most `limit`, if the first `from` have one.
  __device__ int within(double limit, int from) const {
    int above = kept;
    while (from < above) {
      const int middle = (from + above) / 2;
      if (score(middle) <= limit) {
        from = middle + 1;
      } else {
        above = middle;
      }
    }
    return from;
  }

  // Exact distances of candidates [from, to). A barrier closes it.
  __device__ void compare(const FilterRows<float>& query, const FilterRows<float>& base, Metric metric, int from,
                          int to) const {
    for (int c = from + threadIdx.x / kWarpSize; c < to; c += kFilterWarps) {
      const double distance = exact_distance(query, base, metric, i, key_index(keys[c]));
      if (threadIdx.x % kWarpSize == 0) exact[c] = distance;
    }
    __syncthreads();
  }

  // How many of the first `count` candidates come before candidate c; k stands for k or more.
  __device__ int64_t rank(int c, int count) const {
    const double distance = exact[c];
    const uint32_t index = key_index(keys[c]);
    int64_t before = 0;
    for (int o = 0; o < count && before < k; ++o) {
      before += exact[o] < distance || (exact[o] == distance && key_index(keys[o]) < index);
    }
    return before;
  }

  // Writes the nearest of the first `count` candidates. `certain`: no other row can be among them; else one with a
  // score of the last candidate, less `margin`, could be.
  __device__ void write(const FilterRows<float>& query, const FilterUnits& units, float* distances, int64_t* indices,
                        Failures failures, int count, bool certain, double margin) const {
    for (int c = threadIdx.x; c < count; c += kFilterThreads) {
      const int64_t place = rank(c, count);
      if (place >= k) continue;
      distances[i * k + place] = returned_distance(exact[c], units.metric);
      indices[i * k + place] = key_index(keys[c]);
      if (place != k - 1 || certain) continue;
      const double unseen = score(kept - 1) - margin;
      if (!(exact_score(query, units, i, exact[c]) < unseen)) failures.list[atomicAdd(failures.count, 1ull)] = i;
    }
    if (threadIdx.x == 0 && failures.compared) atomicAdd(failures.compared, static_cast<unsigned long long>(count));
  }
};

// Candidates by approximate scores, which are off by at most a margin to either side.
//
// The k first candidates have exact scores of at most that of the k-th plus a margin, so no row of the answer has an
// approximate one above that plus another margin: as a rule this leaves few of the candidates, and no doubt.
__global__ void settle(const uint64_t* keys, int64_t pitch, FilterRows<float> query, FilterRows<float> base,
                       FilterUnits units, float* distances, int64_t* indices, Failures failures, Queries queries,
                       int kept, int64_t k) {
  DYNAMIC_SHARED(double, exact);  // [kept]
  const int64_t i = queries[blockIdx.x];
  const Settling row{keys + blockIdx.x * pitch, kept, exact, i, k};
  const double margin = score_margin(query, base, units, i);
  const int count = row.within(row.score(static_cast<int>(k) - 1) + 2 * margin, static_cast<int>(k));
  row.compare(query, base, units.metric, 0, count);
  row.write(query, units, distances, indices, failures, count, count < kept || kept == base.n, margin);
}

// Candidates by lower bounds of their scores, which say nothing of the k-th from above: so the most promising are
// compared first, and the k-th of those is what a bound must not exceed.
__global__ void settle_bounds(const uint64_t* keys, int64_t pitch, FilterRows<float> query, FilterRows<float> base,
                              FilterUnits units, float* distances, int64_t* indices, Failures failures, Queries queries,
                              int kept, int64_t k) {
  DYNAMIC_SHARED(double, exact);  // [kept]
  __shared__ double limit;
  const int64_t i = queries[blockIdx.x];
  const Settling row{keys + blockIdx.x * pitch, kept, exact, i, k};
  const double margin = score_margin(query, base, units, i);
  const int promising = static_cast<int>(Min{}(static_cast<int64_t>(kept), k + k / 2));
  row.compare(query, base, units.metric, 0, promising);
  for (int c = threadIdx.x; c < promising; c += kFilterThreads) {
    if (row.rank(c, promising) == k - 1) limit = exact_score(query, units, i, exact[c]) + margin;
  }
  __syncthreads();
  const int count = row.within(limit, promising);
  row.compare(query, base, units.metric, promising, count);
  row.write(query, units, distances, indices, failures, count, count < kept || kept == base.n, margin);
}

}  // namespace
}  // namespace ise_fast
