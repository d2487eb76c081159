// CMC, mAP and mINP of a distance matrix, the gallery ranked by (distance, index); the definitions are in
// ise_fast/ops/rank.py.
//
// A block takes one query at a time: it sorts the distances of the few matches, then counts, for each of them, the
// entries of other identities up to it. All counts are integers; the float64 sums over the matches of a query and over
// the queries run in the CPU operator's order, by one warp and by one lane each.
#include <optional>
#include <tuple>

#include "../check_rank.h"
#include "csr.cuh"
#include "topk.cuh"

namespace ise_fast {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpSize;
constexpr int64_t kSharedRoom = 1024;  // matches of a query that shared memory holds; more go to global memory

// float64 in the order of its bits; float32 converts to it without loss. Adding +0 turns -0 into +0.
__device__ uint64_t ordered_distance(double value) {
  value += 0.0;
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits >> 63 ? ~bits : bits | uint64_t{1} << 63;
}

struct Identities {
  const int64_t* query_id;
  const int64_t* gallery_id;
  const int64_t* query_cam;  // null: no cameras, nothing is left out
  const int64_t* gallery_cam;

  __device__ bool same(int64_t q, int64_t j) const { return query_id[q] == gallery_id[j]; }
  __device__ bool match(int64_t q, int64_t j) const {
    return same(q, j) && (query_cam == nullptr || query_cam[q] != gallery_cam[j]);
  }
};

// Of all queries.
struct Survey {
  unsigned long long bad_row;  // first row with NaN or infinity, or kNowhere
  unsigned long long most_matches;
};

template <class T>
__global__ void survey_queries(const T* distance, Identities people, int64_t gallery, Survey* survey) {
  __shared__ int64_t scratch[kWarps];
  const int64_t q = blockIdx.x;
  int64_t matches = 0;
  bool finite = true;
  for (int64_t j = threadIdx.x; j < gallery; j += kThreads) {
    finite &= fabs(static_cast<double>(distance[q * gallery + j])) < INFINITY;
    matches += people.match(q, j);
  }
  matches = block_sum(matches, scratch);
  finite = __syncthreads_and(finite);
  if (threadIdx.x != 0) return;
  if (!finite) atomicMin(&survey->bad_row, static_cast<unsigned long long>(q));
  atomicMax(&survey->most_matches, static_cast<unsigned long long>(matches));
}

// How many of `count` ascending keys are below `key`.
__device__ int keys_below(const uint64_t* keys, int count, uint64_t key) {
  int low = 0, high = count;
  while (low < high) {
    const int middle = low + (high - low) / 2;
    if (keys[middle] < key) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// Sum over the distinct distances of (matches there) * precision, in ascending order, by a warp. others[p]: entries of
// other identities beyond key[p - 1] and up to key[p].
__device__ double precision_steps(const uint64_t* key, const unsigned* others, int count) {
  const int lane = threadIdx.x % kWarpSize;
  double steps = 0.0;
  int64_t others_before = 0;
  for (int first = 0; first < count; first += kWarpSize) {
    const int p = first + lane;
    const int64_t here = p < count ? others[p] : 0;
    const int64_t others_up_to = others_before + warp_exclusive_sum(here) + here;
    double step = 0.0;
    if (p < count && (p + 1 == count || key[p + 1] != key[p])) {  // the last of equal distances
      const int64_t found = p + 1, equal = found - keys_below(key, p, key[p]);
      step = static_cast<double>(equal * found) / static_cast<double>(found + others_up_to);
    }
    for (int l = 0; l < kWarpSize; ++l) steps += __shfl_sync(kWholeWarp, step, l);
    others_before = __shfl_sync(kWholeWarp, others_up_to, kWarpSize - 1);
  }
  return steps;
}

// What the queries add up to: AP (NaN: no match) and INP of each, and how many have their first match at each rank.
struct QueryScores {
  double* ap;
  double* inp;
  unsigned long long* first_at;
  int64_t max_rank;
};

// Block b takes the queries b, b + gridDim.x, ...; `room`: a power of two, at least the matches of any query.
template <class T>
__global__ void __launch_bounds__(kThreads)
    score_queries(const T* distance, Identities people, int64_t queries, int64_t gallery, int64_t room,
                  uint64_t* key_scratch, unsigned* others_scratch, QueryScores scores) {
  DYNAMIC_SHARED(uint64_t, shared);
  __shared__ int64_t scratch[kWarps];
  __shared__ unsigned collected;
  const bool fits = room <= kSharedRoom;
  uint64_t* const key = fits ? shared : key_scratch + blockIdx.x * room;
  unsigned* const others = fits ? reinterpret_cast<unsigned*>(shared + room) : others_scratch + blockIdx.x * room;
  for (int64_t q = blockIdx.x; q < queries; q += gridDim.x) {
    const T* row = distance + q * gallery;
    if (threadIdx.x == 0) collected = 0;
    __syncthreads();
    for (int64_t j = threadIdx.x; j < gallery; j += kThreads) {
      if (people.match(q, j)) key[atomicAdd(&collected, 1u)] = ordered_distance(row[j]);
    }
    __syncthreads();
    const auto count = static_cast<int>(collected);
    if (count == 0) {
      if (threadIdx.x == 0) scores.ap[q] = NAN;
      __syncthreads();  // nobody may reset `collected` before everybody has read it
      continue;
    }
    int padded = 1;
    while (padded < count) padded *= 2;
    for (int p = threadIdx.x; p < padded; p += kThreads) {
      others[p] = 0;
      if (p >= count) key[p] = kWorstKey;
    }
    __syncthreads();
    block_sort(key, padded);

    // Of equal distances the match with the lowest index is the first, the one with the highest the last.
    const uint64_t nearest = key[0], furthest = key[count - 1];
    int64_t first_index = gallery, last_index = -1;
    for (int64_t j = threadIdx.x; j < gallery; j += kThreads) {
      if (!people.match(q, j)) continue;
      const uint64_t mine = ordered_distance(row[j]);
      if (mine == nearest) first_index = Min{}(first_index, j);
      if (mine == furthest) last_index = j;
    }
    first_index = block_reduce(first_index, Min{}, gallery, scratch);
    last_index = block_reduce(last_index, Max{}, int64_t{-1}, scratch);

    int64_t before_first = 0, before_last = 0;
    for (int64_t j = threadIdx.x; j < gallery; j += kThreads) {
      if (people.same(q, j)) continue;
      const uint64_t mine = ordered_distance(row[j]);
      if (mine > furthest) continue;
      atomicAdd(others + keys_below(key, count, mine), 1u);
      before_first += mine < nearest || (mine == nearest && j < first_index);
      before_last += mine < furthest || j < last_index;
    }
    before_first = block_sum(before_first, scratch);
    before_last = block_sum(before_last, scratch);

    if (threadIdx.x < kWarpSize) {
      const double steps = precision_steps(key, others, count);
      if (threadIdx.x == 0) {
        scores.ap[q] = steps / count;
        scores.inp[q] = static_cast<double>(count) / (static_cast<double>(before_last) + count);
        if (before_first < scores.max_rank) atomicAdd(scores.first_at + before_first, 1ull);
      }
    }
    __syncthreads();  // nobody may collect the next query's matches before this one is scored
  }
}

// Means over the queries that have a match, added in their order; one block. All threads bring the numbers, two lanes
// add them: each sum is one chain of additions.
constexpr int kAveraged = 2048;  // queries that are in shared memory at once

__global__ void __launch_bounds__(kThreads)
    average_queries(const double* ap, const double* inp, int64_t queries, double* mean_ap, double* mean_inp,
                    int64_t* valid, float* single_ap) {
  __shared__ double terms[2][kAveraged];
  __shared__ int64_t scratch[kWarps];
  double sum = 0.0;  // of AP in thread 0, of INP in thread 1
  int64_t counted = 0;
  for (int64_t first = 0; first < queries; first += kAveraged) {
    const auto count = static_cast<int>(Min{}(queries - first, static_cast<int64_t>(kAveraged)));
    for (int p = threadIdx.x; p < count; p += kThreads) {
      const double mine = ap[first + p];
      const bool has_match = mine == mine;
      terms[0][p] = has_match ? mine : 0.0;
      terms[1][p] = has_match ? inp[first + p] : 0.0;
      single_ap[first + p] = static_cast<float>(mine);
      counted += has_match;
    }
    __syncthreads();
    if (threadIdx.x < 2) {
      const double* const mine = terms[threadIdx.x];
#pragma unroll 16
      for (int p = 0; p < count; ++p) sum += mine[p];
    }
    __syncthreads();  // nobody may overwrite the terms before they are added
  }
  counted = block_sum(counted, scratch);
  if (threadIdx.x < 2) *(threadIdx.x == 0 ? mean_ap : mean_inp) = sum / static_cast<double>(counted);
  if (threadIdx.x == 0) *valid = counted;
}

// found_before[r]: queries whose first match has a rank of r or better.
__global__ void write_cmc(const int64_t* found_before, const int64_t* valid, int64_t max_rank, float* cmc) {
  const int64_t r = thread_index();
  if (r < max_rank) cmc[r] = static_cast<float>(static_cast<double>(found_before[r + 1]) / static_cast<double>(*valid));
}

template <class T>
std::tuple<Tensor, Tensor, Tensor, Tensor> evaluate(const Tensor& d, const Identities& people, int64_t max_rank,
                                                    cudaStream_t stream) {
  const int64_t queries = d.size(0), gallery = d.size(1);
  check(gallery <= int64_t{1} << 30, "distance: expected at most 2^30 columns on a GPU, got ", gallery);
  const T* distance = d.const_data_ptr<T>();
  const Scratch<Survey> survey(1, d);
  fill_bytes(&survey.data()->bad_row, 0xff, sizeof(survey.data()->bad_row), stream);
  fill_bytes(&survey.data()->most_matches, 0, sizeof(survey.data()->most_matches), stream);
  if (queries > 0) {
    LAUNCH(survey_queries<T>, static_cast<unsigned>(queries), kThreads, 0, stream, distance, people, gallery,
           survey.data());
  }
  const Survey all = read_back(survey.data(), stream);
  check(all.bad_row == kNowhere, "distance: expected finite values, got NaN or infinity in row ", all.bad_row);
  check(all.most_matches > 0, "query_ids: expected at least one query with a match in the gallery, got none");

  const auto room = static_cast<int64_t>(std::bit_ceil(all.most_matches));
  const int64_t room_bytes = room * static_cast<int64_t>(sizeof(uint64_t) + sizeof(unsigned));
  const bool fits = room <= kSharedRoom;
  const int64_t affordable = fits ? queries : std::max<int64_t>(1, device_bytes() / 64 / room_bytes);
  const Scratch<double> ap(queries, d), inp(queries, d);
  const Scratch<unsigned long long> first_at(max_rank + 1, d);
  first_at.fill(0, stream);
  halve_on_failure(std::min<int64_t>({queries, affordable, 8 * multiprocessors()}), 1, [&](int64_t blocks) {
    const Scratch<uint64_t> keys(fits ? 0 : blocks * room, d);
    const Scratch<unsigned> others(fits ? 0 : blocks * room, d);
    LAUNCH(score_queries<T>, static_cast<unsigned>(blocks), kThreads, fits ? room_bytes : 0, stream, distance, people,
           queries, gallery, room, keys.data(), others.data(),
           QueryScores{ap.data(), inp.data(), first_at.data(), max_rank});
  });

  Tensor mean_ap = device_empty(d, {}, ScalarType::Double);
  Tensor cmc = device_empty(d, {max_rank}, ScalarType::Float);
  Tensor mean_inp = device_empty(d, {}, ScalarType::Double);
  Tensor single_ap = device_empty(d, {queries}, ScalarType::Float);
  const Scratch<int64_t> valid(1, d), found_before(max_rank + 1, d);
  LAUNCH(average_queries, 1, kThreads, 0, stream, ap.data(), inp.data(), queries, mean_ap.mutable_data_ptr<double>(),
         mean_inp.mutable_data_ptr<double>(), valid.data(), single_ap.mutable_data_ptr<float>());
  exclusive_sum(reinterpret_cast<const int64_t*>(first_at.data()), found_before.data(), max_rank + 1, d, stream);
  LAUNCH(write_cmc, blocks_for(max_rank), kCsrThreads, 0, stream, found_before.data(), valid.data(), max_rank,
         cmc.mutable_data_ptr<float>());
  return {mean_ap, cmc, mean_inp, single_ap};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> rank_metrics(const Tensor& distance, const Tensor& query_ids,
                                                        const Tensor& gallery_ids,
                                                        const std::optional<Tensor>& query_cams,
                                                        const std::optional<Tensor>& gallery_cams, int64_t max_rank) {
  const bool cameras = query_cams.has_value();
  check_rank_metrics(distance, query_ids, gallery_ids, query_cams ? &*query_cams : nullptr,
                     gallery_cams ? &*gallery_cams : nullptr, max_rank);
  const DeviceScope device(distance);
  const Tensor d = device_contiguous(distance), qi = device_contiguous(query_ids), gi = device_contiguous(gallery_ids),
               qc = cameras ? device_contiguous(*query_cams) : qi, gc = cameras ? device_contiguous(*gallery_cams) : gi;
  const Identities people{qi.const_data_ptr<int64_t>(), gi.const_data_ptr<int64_t>(),
                          cameras ? qc.const_data_ptr<int64_t>() : nullptr,
                          cameras ? gc.const_data_ptr<int64_t>() : nullptr};
  const cudaStream_t stream = current_stream(d);
  return d.scalar_type() == ScalarType::Double ? evaluate<double>(d, people, max_rank, stream)
                                               : evaluate<float>(d, people, max_rank, stream);
}

}  // namespace

ISE_FAST_CUDA_OPERATORS(m) {
  m.impl("rank_metrics", TORCH_BOX(&rank_metrics));
}

}  // namespace ise_fast
