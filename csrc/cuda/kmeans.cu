// Lloyd's k-means with every tie decided, as in csrc/cpu/kmeans.cpp, to the same bits: a float16 product proposes
// centres, float64 distances decide, and means are float64 sums in row order.
#include <cfloat>
#include <tuple>
#include <utility>

#include "../check_methods.h"
#include "../math/distance.h"
#include "../math/row_sum.h"
#include "cub.h"
#include "finite.cuh"
#include "label_order.cuh"
#include "online_softmax.cuh"
#include "split.cuh"

namespace ise_fast {
namespace {

// The nearest centre of each row, from the approximate products z of `count` rows from `first` on; a warp a row.
__global__ void assign_rows(const float* z, const float* x, const float* centres, const double* x_length,
                            const double* c_length, const unsigned* longest_bits, double unit_error, int64_t* labels,
                            double* distances, int64_t first, int64_t count, int64_t k, int64_t d) {
  const int64_t r = static_cast<int64_t>(blockIdx.x) * kHeadWarps + threadIdx.x / kWarpSize, i = first + r;
  if (r >= count) return;
  const int lane = threadIdx.x % kWarpSize;
  const double longest = length_of_bits(*longest_bits), length = x_length[i];
  const auto score = [&](int64_t c) { return z[r * k + c] - static_cast<float>(c_length[c] * c_length[c] / 2); };
  float best = -INFINITY;
  for (int64_t c = lane; c < k; c += kWarpSize) best = Max{}(best, score(c));
  best = warp_reduce(best, Max{});
  // How far a score can be from the exact one (csrc/cpu/lloyd.h); nothing is known far from 1.
  constexpr double u = FLT_EPSILON / 2;
  const double far = length > longest ? length : longest, wide = static_cast<double>(d);
  const bool unknown = far > 0x1p60 || (far < 0x1p-60 && far > 0);
  const double margin = length * longest * (unit_error + 8 * u) + 4 * u * longest * longest +
                        (wide + 32) * 0x1p-52 * (length + longest) * (length + longest) + wide * 1e-37;
  const double threshold = best - 2 * margin - fabs(best) * u;
  int64_t label = 0;
  double nearest = INFINITY;
  for (int64_t chunk = 0; chunk < k; chunk += kWarpSize) {
    const int64_t c = chunk + lane;
    unsigned votes = __ballot_sync(kWholeWarp, c < k && (unknown || !(score(c) < threshold)));
    while (votes) {
      const int64_t candidate = chunk + __ffs(static_cast<int>(votes)) - 1;
      const double distance = warp_sum(squared_distance_lane(x + i * d, centres + candidate * d, d, lane));
      if (distance < nearest) {
        nearest = distance;
        label = candidate;
      }
      votes &= votes - 1;
    }
  }
  if (lane == 0) {
    labels[i] = label;
    distances[i] = nearest;
  }
}

// counts[c] and start[c] of the sorted labels.
__global__ void count_labels(const uint64_t* sorted, int64_t n, int64_t k, int64_t* start, int64_t* counts) {
  const int64_t c = static_cast<int64_t>(blockIdx.x) * kHeadThreads + threadIdx.x;
  if (c >= k) return;
  const auto at_least = [&](uint64_t label) {
    int64_t low = 0, high = n;
    while (low < high) {
      const int64_t middle = low + (high - low) / 2;
      if (sorted[middle] < label) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  };
  start[c] = at_least(static_cast<uint64_t>(c));
  counts[c] = at_least(static_cast<uint64_t>(c) + 1) - start[c];
}

// Rows of each cluster in row order; a thread a number.
__global__ void sum_clusters(const float* x, const uint32_t* rows, const int64_t* start, const int64_t* counts,
                             double* sums, int64_t d) {
  const auto [c, j] = cell_of_thread(d);
  if (j >= d) return;
  double sum = 0;
  for (int64_t p = start[c]; p < start[c] + counts[c]; ++p) sum += x[rows[p] * d + j];
  sums[c * d + j] = sum;
}

__global__ void move_centres(const double* sums, const int64_t* counts, float* centres, int64_t k, int64_t d) {
  const int64_t j = static_cast<int64_t>(blockIdx.x) * kHeadThreads + threadIdx.x;
  if (j < k * d) centres[j] = static_cast<float>(sums[j] / static_cast<double>(counts[j / d]));
}

// math/row_sum.h, by one block of kSumLanes threads.
__global__ void sum_distances(const double* distances, double* sum, int64_t n) {
  __shared__ double scratch[kSumLanes / kWarpSize];
  double mine = 0;
  for (int64_t i = threadIdx.x; i < n; i += kSumLanes) mine += distances[i];
  mine = block_sum(mine, scratch);
  if (threadIdx.x == 0) *sum = mine;
}

// Empty centres, lowest first, take the row farthest from its own centre; by one block. `distance` is scratch.
__global__ void fill_empty(int64_t* labels, int64_t* counts, double* distance, int64_t n, int64_t k) {
  __shared__ double scratch[kHeadWarps];
  for (int64_t c = 0; c < k; ++c) {
    if (counts[c] > 0) continue;  // the same for all threads: barriers lie between any change and this
    double most = -1;
    int64_t row = n;
    for (int64_t i = threadIdx.x; i < n; i += kHeadThreads) {
      if (counts[labels[i]] > 1 && distance[i] > most) {
        most = distance[i];
        row = i;
      }
    }
    const double farthest = block_reduce(most, Max{}, -1.0, scratch);
    const auto mine = static_cast<double>(most == farthest ? row : n);
    const auto chosen = static_cast<int64_t>(block_reduce(mine, Min{}, static_cast<double>(n), scratch));
    if (threadIdx.x == 0 && chosen < n) {
      counts[labels[chosen]] -= 1;
      counts[c] = 1;
      labels[chosen] = c;
      distance[chosen] = 0;
    }
    __syncthreads();
  }
}

__global__ void compare_labels(const int64_t* a, const int64_t* b, int* differ, int64_t n) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kHeadThreads + threadIdx.x;
  if (i < n && a[i] != b[i]) store_relaxed(differ, 1);
}

// State of a run: tensors of n rows and k centres, and the work on them.
class Lloyd {
public:
  Lloyd(const Tensor& x, const Tensor& centres)
      : x_(device_contiguous(x)),
        n_(x.size(0)),
        d_(x.size(1)),
        k_(centres.size(0)),
        stream_(current_stream(x)),
        centres_(device_empty(x, {k_, d_})),
        labels_(integers(n_)),
        counts_(integers(k_)),
        start_(integers(k_)),
        rows_(integers(n_)),
        distances_(numbers({n_})),
        x_length_(numbers({n_})),
        c_length_(numbers({k_})),
        sums_(numbers({k_, d_})),
        factor_(factor_of(x_, filter_parts(x_))) {
    torch::stable::copy_(centres_, centres);
    check_finite_rows(x_, "x", stream_);
    check_finite_rows(centres_, "centres", stream_);
    measure(x_, x_length_);
  }

  void assign() {
    measure(centres_, c_length_);
    Tensor longest = device_zeros(labels_, {1});
    auto* const bits = reinterpret_cast<unsigned*>(longest.mutable_data_ptr<int64_t>());
    LAUNCH(longest_centroid, blocks_for(k_, kHeadWarps), kHeadThreads, 0, stream_, centres_.const_data_ptr<float>(),
           nullptr, bits, k_, d_);
    constexpr int64_t kTileNumbers = int64_t{1} << 25;
    const int64_t height = std::clamp<int64_t>(kTileNumbers / k_, 1, std::max<int64_t>(n_, 1));
    Tensor tile = device_empty(x_, {height, k_});
    const Factor centres = factor_of(centres_, factor_.parts());
    for (int64_t first = 0; first < n_; first += height) {
      const int64_t count = std::min(height, n_ - first);
      Tensor z = torch::stable::narrow(tile, 0, 0, count);
      multiply_transposed(z, factor_.part(first, count), centres);
      LAUNCH(assign_rows, blocks_for(count, kHeadWarps), kHeadThreads, 0, stream_, tile.const_data_ptr<float>(),
             x_.const_data_ptr<float>(), centres_.const_data_ptr<float>(), x_length_.const_data_ptr<double>(),
             c_length_.const_data_ptr<double>(), bits, centres.error(), labels_.mutable_data_ptr<int64_t>(),
             distances_.mutable_data_ptr<double>(), first, count, k_, d_);
    }
    sort_rows(labels_);
  }

  // Rows of each cluster, from labels.
  void sort_rows(const Tensor& labels) {
    const Words<uint64_t> keys(n_, labels_), sorted(n_, labels_);
    const Words<uint32_t> values(n_, labels_);
    auto* const order = reinterpret_cast<uint32_t*>(rows_.mutable_data_ptr<int64_t>());
    if (n_ > 0) {
      sort_by_label(labels.const_data_ptr<int64_t>(), keys.data(), values.data(), sorted.data(), order, n_, labels_,
                    stream_, 32);
    }
    LAUNCH(count_labels, blocks_for(k_, kHeadThreads), kHeadThreads, 0, stream_, sorted.data(), n_, k_,
           start_.mutable_data_ptr<int64_t>(), counts_.mutable_data_ptr<int64_t>());
  }

  void add_up() {
    LAUNCH(sum_clusters, cell_blocks(k_, d_), kHeadThreads, 0, stream_, x_.const_data_ptr<float>(),
           reinterpret_cast<const uint32_t*>(rows_.const_data_ptr<int64_t>()), start_.const_data_ptr<int64_t>(),
           counts_.const_data_ptr<int64_t>(), sums_.mutable_data_ptr<double>(), d_);
  }

  // The labels when empty centres have taken a row.
  void fill(Tensor& filled) const {
    Tensor distance = numbers({n_}), counts = integers(k_);
    torch::stable::copy_(distance, distances_);
    torch::stable::copy_(counts, counts_);
    torch::stable::copy_(filled, labels_);
    LAUNCH(fill_empty, 1, kHeadThreads, 0, stream_, filled.mutable_data_ptr<int64_t>(),
           counts.mutable_data_ptr<int64_t>(), distance.mutable_data_ptr<double>(), n_, k_);
  }

  // To the means of filled labels.
  void move(const Tensor& filled) {
    sort_rows(filled);
    add_up();
    LAUNCH(ise_fast::move_centres, blocks_for(k_ * d_, kHeadThreads), kHeadThreads, 0, stream_,
           sums_.const_data_ptr<double>(), counts_.const_data_ptr<int64_t>(), centres_.mutable_data_ptr<float>(), k_,
           d_);
  }

  bool differ(const Tensor& filled, const Tensor& before) const {
    const Words<int> differ(1, labels_);
    fill_bytes(differ.data(), 0, sizeof(int), stream_);
    LAUNCH(compare_labels, blocks_for(n_, kHeadThreads), kHeadThreads, 0, stream_, filled.const_data_ptr<int64_t>(),
           before.const_data_ptr<int64_t>(), differ.data(), n_);
    return read_back(differ.data(), stream_) != 0;
  }

  Tensor inertia() const {
    Tensor sum = numbers({});
    LAUNCH(sum_distances, 1, kSumLanes, 0, stream_, distances_.const_data_ptr<double>(), sum.mutable_data_ptr<double>(),
           n_);
    return sum;
  }

  const Tensor& labels() const { return labels_; }
  const Tensor& counts() const { return counts_; }
  const Tensor& sums() const { return sums_; }
  const Tensor& distances() const { return distances_; }
  const Tensor& centres() const { return centres_; }

private:
  Tensor integers(int64_t n) const { return device_empty(x_, {n}, ScalarType::Long); }
  Tensor numbers(std::initializer_list<int64_t> shape) const { return device_empty(x_, shape, ScalarType::Double); }
  void measure(const Tensor& rows, Tensor& lengths) const {
    if (rows.size(0) == 0) return;
    LAUNCH(row_lengths, blocks_for(rows.size(0), kHeadWarps), kHeadThreads, 0, stream_, rows.const_data_ptr<float>(),
           lengths.mutable_data_ptr<double>(), rows.size(0), d_);
  }

  Tensor x_;
  const int64_t n_, d_, k_;
  cudaStream_t stream_;
  Tensor centres_, labels_, counts_, start_, rows_, distances_, x_length_, c_length_, sums_;
  Factor factor_;  // x
};

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> kmeans_step(const Tensor& x, const Tensor& centres) {
  check_kmeans_step(x, centres);
  const DeviceScope device(x);
  Lloyd lloyd(x, centres);
  lloyd.assign();
  lloyd.add_up();
  return {lloyd.labels(), lloyd.sums(), lloyd.counts(), lloyd.inertia(), lloyd.distances()};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> kmeans(const Tensor& x, const Tensor& centres, int64_t iterations) {
  check_kmeans(x, centres, iterations);
  const DeviceScope device(x);
  Lloyd lloyd(x, centres);
  Tensor before = device_empty(x, {x.size(0)}, ScalarType::Long);
  Tensor filled = device_empty(x, {x.size(0)}, ScalarType::Long), kept = device_empty(x, {x.size(0)}, ScalarType::Long);
  lloyd.assign();
  lloyd.fill(filled);
  int64_t done = 1;
  // When they end: csrc/cpu/kmeans.cpp.
  while (done == 1 || (lloyd.differ(filled, before) && lloyd.differ(filled, kept))) {
    if ((done & (done - 1)) == 0) torch::stable::copy_(kept, filled);
    lloyd.move(filled);
    std::swap(before, filled);
    lloyd.assign();
    if (++done > iterations) break;
    lloyd.fill(filled);
  }
  Tensor count = device_empty(x, {}, ScalarType::Long);
  torch::stable::fill_(count, static_cast<double>(std::min(done, iterations)));
  return {lloyd.labels(), lloyd.centres(), lloyd.inertia(), count};
}

}  // namespace

ISE_FAST_CUDA_OPERATORS(m) {
  m.impl("kmeans_step", TORCH_BOX(&kmeans_step));
  m.impl("kmeans", TORCH_BOX(&kmeans));
}

}  // namespace ise_fast
