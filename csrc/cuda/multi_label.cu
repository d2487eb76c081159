// Multi-labels by cycle consistency and their loss, as in csrc/cpu/multi_label.cpp. The loss waits for nothing; the
// search waits for the device once a round, to learn whether any chain of candidates goes on.
#include <tuple>
#include <vector>

#include "../check_methods.h"
#include "cub.h"
#include "finite.cuh"
#include "hardest.cuh"
#include "online_softmax.cuh"

namespace ise_fast {
namespace {

// One image whose positives are looked for (csrc/cpu/multi_label.cpp).
struct Search {
  uint64_t first, last;  // keys of c_0 and of the candidate asked last
  int64_t similar, passed, asked;
  int open, unused;
};

struct Cycle {
  const float* table;
  const int64_t* rows;    // [count]
  const double* lengths;  // [N]
  const unsigned* longest;
  uint64_t* keys;  // [count, N] exact similarities beyond the threshold, kWorstKey elsewhere
  Search* searches;
  int64_t count, n, d, least;
  double threshold;

  __device__ double error(int64_t row) const {
    const double unit = product_error(d);
    return unit * lengths[row] * length_of_bits(*longest);
  }
  __device__ float exact(int64_t a, int64_t b) const {
    return static_cast<float>(warp_dot(table + a * d, table + b * d, d)) + 0.0f;
  }
};

__global__ void copy_rows(const float* table, const int64_t* rows, float* out, int64_t d) {
  const auto [i, c] = cell_of_thread(d);
  if (c < d) out[i * d + c] = table[rows[i] * d + c];
}

__global__ void bad_index(const int64_t* rows, unsigned long long* first, int64_t count, int64_t n) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kHeadThreads + threadIdx.x;
  if (i < count && (rows[i] < 0 || rows[i] >= n)) atomicMin(first, static_cast<unsigned long long>(i));
}

// The next candidate: the best key after the last one. By all threads of the block.
__device__ uint64_t key_after(const uint64_t* keys, int64_t n, uint64_t last, bool any, uint64_t* scratch) {
  return next_key(n, last, any, scratch, [&](int64_t j) { return keys[j]; });
}

// Whether and whom to ask next; by one thread, `next` the key after the last one.
__device__ void ask(Search& search, uint64_t next) {
  search.open = search.similar > 2 && search.passed < search.similar;
  search.last = next;
  search.asked = search.open ? static_cast<int64_t>(key_index(next)) : -1;
}

// Rows beyond the threshold, and the first candidate to ask; a block an image.
__global__ void find_similar(Cycle in, const float* products) {
  __shared__ uint64_t scratch[kHeadWarps];
  __shared__ double sums[kHeadWarps];
  const int64_t i = blockIdx.x, row = in.rows[i];
  const float* const z = products + i * in.n;
  uint64_t* const keys = in.keys + i * in.n;
  const double low = in.threshold - in.error(row);
  double similar = 0;
  for (int64_t chunk = threadIdx.x / kWarpSize * kWarpSize; chunk < in.n; chunk += kHeadThreads) {
    const int64_t j = chunk + threadIdx.x % kWarpSize;
    const bool mine = j < in.n && z[j] > low;
    if (j < in.n && !mine) keys[j] = kWorstKey;
    unsigned votes = __ballot_sync(kWholeWarp, mine);
    while (votes) {
      const int64_t c = chunk + __ffs(static_cast<int>(votes)) - 1;
      const float exact = in.exact(row, c);
      if (threadIdx.x % kWarpSize == 0) {
        const bool beyond = static_cast<double>(exact) > in.threshold;
        keys[c] = beyond ? descending_key(exact, static_cast<uint32_t>(c)) : kWorstKey;
        similar += beyond;
      }
      votes &= votes - 1;
    }
  }
  similar = block_sum(similar, sums);  // its barriers also order the keys
  const uint64_t first = key_after(keys, in.n, 0, true, scratch);
  uint64_t next = first;
  // c_0 is the first of its own list if it is the image itself.
  const bool itself = similar > 0 && static_cast<int64_t>(key_index(first)) == row;
  if (itself) next = key_after(keys, in.n, first, false, scratch);
  if (threadIdx.x != 0) return;
  Search search = {first, 0, static_cast<int64_t>(similar), itself, -1, 0, 0};
  ask(search, next);
  in.searches[i] = search;
}

__global__ void copy_asked(Cycle in, float* out) {
  const auto [i, c] = cell_of_thread(in.d);
  if (c < in.d) out[i * in.d + c] = in.searches[i].open ? in.table[in.searches[i].asked * in.d + c] : 0.0f;
}

// The place of c_0 in the list of the candidate asked, and the next one to ask; a block an image.
__global__ void count_before(Cycle in, const float* products, int* open) {
  __shared__ uint64_t scratch[kHeadWarps];
  __shared__ double sums[kHeadWarps];
  const int64_t i = blockIdx.x;
  Search search = in.searches[i];
  if (!search.open) return;
  const float* const z = products + i * in.n;
  const int64_t first = key_index(search.first), asked = search.asked;
  const float similarity = in.exact(asked, first);
  const double off = in.error(asked), high = similarity + off, low = similarity - off;
  double before = 0;
  for (int64_t chunk = threadIdx.x / kWarpSize * kWarpSize; chunk < in.n; chunk += kHeadThreads) {
    const int64_t j = chunk + threadIdx.x % kWarpSize;
    const bool certain = j < in.n && z[j] > high;
    if (certain) before += 1;
    unsigned votes = __ballot_sync(kWholeWarp, j < in.n && !certain && !(z[j] < low));
    while (votes) {
      const int64_t c = chunk + __ffs(static_cast<int>(votes)) - 1;
      const float exact = in.exact(asked, c);
      if (threadIdx.x % kWarpSize == 0) before += exact > similarity || (exact == similarity && c < first);
      votes &= votes - 1;
    }
  }
  before = block_sum(before, sums);
  const uint64_t next = key_after(in.keys + i * in.n, in.n, search.last, false, scratch);
  if (threadIdx.x != 0) return;
  const int64_t most = search.similar > in.least ? search.similar : in.least;
  if (static_cast<int64_t>(before) > most) {
    search.open = 0;
  } else {
    search.passed += 1;
    ask(search, next);
  }
  if (search.open) store_relaxed(open, 1);
  in.searches[i] = search;
}

__global__ void any_open(const Search* searches, int* open, int64_t count) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kHeadThreads + threadIdx.x;
  if (i < count && searches[i].open) store_relaxed(open, 1);
}

// Positives of an image: how many (offsets null), or their columns and values; a block an image.
__global__ void write_positives(Cycle in, int64_t* size, const int64_t* offset, int32_t* indices, float* values) {
  __shared__ unsigned shared[256];
  const int64_t i = blockIdx.x, row = in.rows[i];
  const Search search = in.searches[i];
  const uint64_t* const keys = in.keys + i * in.n;
  const int64_t q = search.passed - 1, chain = (q > 1 ? q : 1) + 1;
  const int64_t taken = chain < search.similar ? chain : search.similar;
  const uint64_t worst = taken > 0 ? kth_key(in.n, taken, shared, [&](int64_t j) { return keys[j]; }) : uint64_t{0};
  const int64_t total = compact(
      in.n, shared, [&](int64_t j) { return j == row || (taken > 0 && keys[j] <= worst && keys[j] != kWorstKey); },
      [&](int64_t j, int64_t place) {
        if (offset) indices[offset[i] + place] = static_cast<int32_t>(j);
      });
  if (!offset) {
    if (threadIdx.x == 0) size[i] = total;
    return;
  }
  for (int64_t p = threadIdx.x / kWarpSize; p < total; p += kHeadWarps) {
    const float value = in.exact(row, indices[offset[i] + p]);
    if (threadIdx.x % kWarpSize == 0) values[offset[i] + p] = value;
  }
}

__global__ void shift_offsets(const int64_t* from, int64_t* to, int64_t shift, int64_t count) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kHeadThreads + threadIdx.x;
  if (i < count) to[i] = from[i] + shift;
}

// Runs all chains of a block of images to their ends.
void run_chains(const Cycle& in, const Tensor& table, cudaStream_t stream) {
  Tensor gathered = device_empty(table, {in.count, in.d});
  Tensor products = device_empty(table, {in.count, in.n});
  const Tensor transposed = torch::stable::transpose(table, 0, 1);
  const unsigned copies = cell_blocks(in.count, in.d);
  const auto blocks = static_cast<unsigned>(in.count);
  const Tensor flag = device_empty(table, {1}, ScalarType::Int);
  auto* const open = flag.mutable_data_ptr<int>();
  LAUNCH(copy_rows, copies, kHeadThreads, 0, stream, in.table, in.rows, gathered.mutable_data_ptr<float>(), in.d);
  matmul(products, gathered, transposed);
  LAUNCH(find_similar, blocks, kHeadThreads, 0, stream, in, products.const_data_ptr<float>());
  fill_bytes(open, 0, sizeof *open, stream);
  LAUNCH(any_open, blocks_for(in.count, kHeadThreads), kHeadThreads, 0, stream, in.searches, open, in.count);
  while (read_back(open, stream)) {
    LAUNCH(copy_asked, copies, kHeadThreads, 0, stream, in, gathered.mutable_data_ptr<float>());
    matmul(products, gathered, transposed);
    fill_bytes(open, 0, sizeof *open, stream);
    LAUNCH(count_before, blocks, kHeadThreads, 0, stream, in, products.const_data_ptr<float>(), open);
  }
}

std::tuple<Tensor, Tensor, Tensor> cycle_positives(const Tensor& table, const Tensor& rows, double threshold,
                                                   int64_t least) {
  check_cycle_positives(table, rows, threshold, least);
  const DeviceScope device(table);
  const Tensor v = device_contiguous(table), idx = device_contiguous(rows);
  const int64_t n = v.size(0), d = v.size(1), all = idx.numel();
  const cudaStream_t stream = current_stream(v);
  check_finite_rows(v, "table", stream);
  Tensor indptr = device_zeros(idx, {all + 1});
  std::vector<std::pair<Tensor, Tensor>> parts;
  int64_t total = 0;
  if (all > 0) {
    Tensor word = device_empty(idx, {1});
    auto* const first = reinterpret_cast<unsigned long long*>(word.mutable_data_ptr<int64_t>());
    fill_bytes(first, 0xff, sizeof *first, stream);
    LAUNCH(bad_index, blocks_for(all, kHeadThreads), kHeadThreads, 0, stream, idx.const_data_ptr<int64_t>(), first, all,
           n);
    const unsigned long long bad = read_back(first, stream);
    check(bad == ~0ull, "rows: expected 0 to ", n - 1, ", got ",
          bad == ~0ull ? 0 : read_back(idx.const_data_ptr<int64_t>() + bad, stream), " at row ", bad);
    const Words<double> lengths(n, idx);
    LAUNCH(row_lengths, blocks_for(n, kHeadWarps), kHeadThreads, 0, stream, v.const_data_ptr<float>(), lengths.data(),
           n, d);
    Tensor longest = device_zeros(idx, {1});
    auto* const bits = reinterpret_cast<unsigned*>(longest.mutable_data_ptr<int64_t>());
    LAUNCH(longest_centroid, blocks_for(n, kHeadWarps), kHeadThreads, 0, stream, v.const_data_ptr<float>(), nullptr,
           bits, n, d);
    constexpr int64_t kScratch = int64_t{1} << 24;
    const int64_t height = std::clamp<int64_t>(kScratch / n, 1, all);
    const Words<uint64_t> keys(height * n, idx);
    const Words<Search> searches(height, idx);
    const Words<int64_t> offsets(height + 1, idx);
    for (int64_t begin = 0; begin < all; begin += height) {
      const int64_t count = std::min(height, all - begin);
      const Cycle in = {v.const_data_ptr<float>(),
                        idx.const_data_ptr<int64_t>() + begin,
                        lengths.data(),
                        bits,
                        keys.data(),
                        searches.data(),
                        count,
                        n,
                        d,
                        least,
                        threshold};
      run_chains(in, v, stream);
      const auto blocks = static_cast<unsigned>(count);
      fill_bytes(offsets.data() + count, 0, sizeof(int64_t), stream);
      LAUNCH(write_positives, blocks, kHeadThreads, 0, stream, in, offsets.data(), nullptr, nullptr, nullptr);
      exclusive_sum(offsets.data(), offsets.data(), count + 1, idx, stream);
      LAUNCH(shift_offsets, blocks_for(count + 1, kHeadThreads), kHeadThreads, 0, stream, offsets.data(),
             indptr.mutable_data_ptr<int64_t>() + begin, total, count + 1);
      const int64_t here = read_back(offsets.data() + count, stream);
      Tensor indices = device_empty(v, {here}, ScalarType::Int), values = device_empty(v, {here});
      LAUNCH(write_positives, blocks, kHeadThreads, 0, stream, in, nullptr, offsets.data(),
             indices.mutable_data_ptr<int32_t>(), values.mutable_data_ptr<float>());
      parts.emplace_back(indices, values);
      total += here;
    }
  }
  if (parts.size() == 1) return {indptr, parts[0].first, parts[0].second};
  Tensor indices = device_empty(v, {total}, ScalarType::Int), values = device_empty(v, {total});
  int64_t at = 0;
  for (const auto& [part_indices, part_values] : parts) {
    Tensor to_indices = torch::stable::narrow(indices, 0, at, part_indices.size(0));
    Tensor to_values = torch::stable::narrow(values, 0, at, part_values.size(0));
    torch::stable::copy_(to_indices, part_indices);
    torch::stable::copy_(to_values, part_values);
    at += part_indices.size(0);
  }
  return {indptr, indices, values};
}

// What the kernels of the loss see; `hard`: [B, most] columns of the hardest negatives, ascending.
struct MultiLabel {
  const float *features, *table;
  const int64_t* indptr;
  const int32_t* positives;
  int32_t* hard;
  int64_t *hard_count, *valid;
  int64_t rows, n, d, listed, most;
  double delta, share;
};

// By one block: whether the positives of row i are columns in ascending order, and how many hard negatives they leave.
__device__ bool good_positives(const MultiLabel& in, int64_t i, int* scratch) {
  const int64_t begin = in.indptr[i], end = in.indptr[i + 1];
  const bool range = 0 <= begin && begin < end && end <= in.listed && (i > 0 || begin == 0);
  int bad = !range;
  for (int64_t p = begin + threadIdx.x; range && p < end; p += kHeadThreads) {
    const int32_t c = in.positives[p];
    bad |= c < 0 || c >= in.n || (p > begin && in.positives[p - 1] >= c);
  }
  return block_reduce(bad, Max{}, 0, scratch) == 0;
}

__global__ void find_hard(MultiLabel in, float* products, const unsigned* longest, uint64_t* keys, int64_t first_row) {
  __shared__ unsigned shared[256];
  __shared__ int flags[kHeadWarps];
  __shared__ double scratch[kHeadWarps];
  const int64_t i = first_row + blockIdx.x;
  float* const z = products + static_cast<int64_t>(blockIdx.x) * in.n;
  const float* const feature = in.features + i * in.d;
  const bool good = good_positives(in, i, flags);
  double bad = good ? 0 : 1;
  for (int64_t j = threadIdx.x; j < in.n; j += kHeadThreads) {
    if (!is_finite(z[j])) bad = 1;
  }
  bad = block_reduce(bad, Max{}, 0.0, scratch);
  if (bad != 0) {  // the same for all threads
    if (threadIdx.x == 0) in.valid[i] = in.hard_count[i] = 0;
    return;
  }
  const int64_t begin = in.indptr[i], end = in.indptr[i + 1];
  for (int64_t p = begin + threadIdx.x; p < end; p += kHeadThreads) z[in.positives[p]] = -INFINITY;
  __syncthreads();
  const auto wanted = static_cast<int64_t>(in.share * static_cast<double>(in.n - (end - begin)));
  const double unit = product_error(in.d);
  const double error = unit * sqrt(warp_dot(feature, feature, in.d)) * length_of_bits(*longest);
  if (wanted > 0) {
    hardest_of_row(
        z, feature, in.table, keys + static_cast<int64_t>(blockIdx.x) * in.n, in.n, in.d, wanted, error, shared,
        [&](int64_t j) { return z[j] != -INFINITY; },
        [&](int64_t j, int64_t p, float) { in.hard[i * in.most + p] = static_cast<int32_t>(j); });
  }
  if (threadIdx.x == 0) {
    in.hard_count[i] = wanted;
    in.valid[i] = wanted > 0;
  }
}

// Loss of each sample and the weights of its gradient: positives first, then the hardest; a block a sample.
__global__ void multi_label_terms(MultiLabel in, double* losses, float* weights) {
  __shared__ double scratch[kHeadWarps];
  const int64_t i = blockIdx.x;
  if (!in.valid[i]) {
    if (threadIdx.x == 0) losses[i] = NAN;
    return;
  }
  const int64_t begin = in.indptr[i], own = in.indptr[i + 1] - begin, hard = in.hard_count[i];
  const double positive = in.delta / static_cast<double>(own), negative = 1 / static_cast<double>(hard);
  const double scale = 2 / static_cast<double>(in.rows);
  double loss = 0;
  for (int64_t t = threadIdx.x / kWarpSize; t < own + hard; t += kHeadWarps) {
    const int64_t c = t < own ? in.positives[begin + t] : in.hard[i * in.most + t - own];
    const double z = warp_dot(in.features + i * in.d, in.table + c * in.d, in.d);
    if (threadIdx.x % kWarpSize != 0) continue;
    loss += t < own ? positive * (1 - z) * (1 - z) : negative * (1 + z) * (1 + z);
    const double weight = t < own ? -scale * positive * (1 - z) : scale * negative * (1 + z);
    // Positives of all rows lie together; the hardest of row i follow those of all rows.
    weights[t < own ? begin + t : in.listed + i * in.most + t - own] = static_cast<float>(weight);
  }
  loss = block_sum(loss, scratch);
  if (threadIdx.x == 0) losses[i] = loss;
}

__global__ void multi_label_gradient(MultiLabel in, const float* weights, float* gradient) {
  const auto [i, c] = cell_of_thread(in.d);
  if (c >= in.d) return;
  float sum = in.valid[i] ? 0.0f : NAN;
  for (int64_t p = in.indptr[i]; in.valid[i] && p < in.indptr[i + 1]; ++p) {
    sum += weights[p] * in.table[in.positives[p] * in.d + c];
  }
  for (int64_t h = 0; h < in.hard_count[i]; ++h) {
    sum += weights[in.listed + i * in.most + h] * in.table[in.hard[i * in.most + h] * in.d + c];
  }
  gradient[i * in.d + c] = sum;
}

std::tuple<Tensor, Tensor> multi_label_loss(const Tensor& features, const Tensor& table, const Tensor& indptr,
                                            const Tensor& indices, double delta, double hard_share,
                                            bool needs_gradient) {
  check_multi_label_loss(features, table, indptr, indices, delta, hard_share);
  check_matrix(features, "features");
  const DeviceScope device(features);
  const Tensor f = device_contiguous(features), v = device_contiguous(table);
  const Tensor p = device_contiguous(indptr), x = device_contiguous(indices);
  const int64_t rows = f.size(0), d = f.size(1), n = v.size(0);
  const int64_t most = std::max<int64_t>(static_cast<int64_t>(hard_share * static_cast<double>(n)), 1);
  const cudaStream_t stream = current_stream(f);
  const Words<int32_t> hard(rows * most, p);
  const Words<int64_t> hard_count(rows, p), valid(rows, p);
  const Words<double> losses(rows, p);
  const Words<float> weights(x.numel() + rows * most, p);
  const MultiLabel in = {f.const_data_ptr<float>(),
                         v.const_data_ptr<float>(),
                         p.const_data_ptr<int64_t>(),
                         x.const_data_ptr<int32_t>(),
                         hard.data(),
                         hard_count.data(),
                         valid.data(),
                         rows,
                         n,
                         d,
                         x.numel(),
                         most,
                         delta,
                         hard_share};
  if (n > 0) {
    Tensor longest = device_zeros(p, {1});
    auto* const bits = reinterpret_cast<unsigned*>(longest.mutable_data_ptr<int64_t>());
    LAUNCH(longest_centroid, blocks_for(n, kHeadWarps), kHeadThreads, 0, stream, v.const_data_ptr<float>(), nullptr,
           bits, n, d);
    constexpr int64_t kScratch = int64_t{1} << 24;
    const int64_t block = std::min(rows, std::max<int64_t>(kScratch / n, 16));
    Tensor products = device_empty(f, {block, n}), every = f;
    const Words<uint64_t> keys(block * n, p);
    for (int64_t begin = 0; begin < rows; begin += block) {
      const int64_t count = std::min(block, rows - begin);
      Tensor z = torch::stable::narrow(products, 0, 0, count);
      matmul(z, torch::stable::narrow(every, 0, begin, count), torch::stable::transpose(v, 0, 1));
      LAUNCH(find_hard, static_cast<unsigned>(count), kHeadThreads, 0, stream, in, products.mutable_data_ptr<float>(),
             bits, keys.data(), begin);
    }
  } else {
    fill_bytes(valid.data(), 0, rows * sizeof(int64_t), stream);
    fill_bytes(hard_count.data(), 0, rows * sizeof(int64_t), stream);
  }
  LAUNCH(multi_label_terms, static_cast<unsigned>(rows), kHeadThreads, 0, stream, in, losses.data(), weights.data());
  Tensor gradient = device_empty(f, {needs_gradient ? rows : 0, d}), loss = device_empty(f, {});
  if (needs_gradient) {
    LAUNCH(multi_label_gradient, cell_blocks(rows, d), kHeadThreads, 0, stream, in, weights.data(),
           gradient.mutable_data_ptr<float>());
  }
  LAUNCH(mean_loss, 1, kHeadThreads, 0, stream, losses.data(), loss.mutable_data_ptr<float>(), rows);
  return {loss, gradient};
}

}  // namespace

ISE_FAST_CUDA_OPERATORS(m) {
  m.impl("cycle_positives", TORCH_BOX(&cycle_positives));
  m.impl("multi_label_loss", TORCH_BOX(&multi_label_loss));
}

}  // namespace ise_fast
