// Multi-labels by cycle consistency, as in csrc/cpu/multi_label.cpp. The search waits for the device once a round, to
// learn whether any chain of candidates goes on.
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
struct Inquiry {
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
  Inquiry* searches;
  int64_t count, n, d, least;
  double threshold;
  double unit_error;  // of the products, per length of both rows

  __device__ double error(int64_t row) const {
    return unit_error * lengths[row] * length_of_bits(*longest) + kUnderflow;
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

// The next candidate: the best key after the last one, or of all. By all threads of the block.
__device__ uint64_t key_after(const uint64_t* keys, int64_t n, uint64_t last, bool any, uint64_t* scratch) {
  uint64_t mine = kWorstKey;
  for (int64_t j = threadIdx.x; j < n; j += kHeadThreads) {
    if ((any || keys[j] > last) && keys[j] < mine) mine = keys[j];
  }
  return block_reduce(mine, Min{}, kWorstKey, scratch);
}

// Whether and whom to ask next; by one thread, `next` the key after the last one.
__device__ void ask(Inquiry& search, uint64_t next) {
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
  Inquiry search = {first, 0, static_cast<int64_t>(similar), itself, -1, 0, 0};
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
  Inquiry search = in.searches[i];
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

__global__ void any_open(const Inquiry* searches, int* open, int64_t count) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kHeadThreads + threadIdx.x;
  if (i < count && searches[i].open) store_relaxed(open, 1);
}

// Positives of an image: how many (offsets null), or their columns and values; a block an image.
__global__ void write_positives(Cycle in, int64_t* size, const int64_t* offset, int32_t* indices, float* values) {
  __shared__ unsigned shared[kBins];
  const int64_t i = blockIdx.x, row = in.rows[i];
  const Inquiry search = in.searches[i];
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
void run_chains(const Cycle& in, const Factor& table, cudaStream_t stream) {
  Tensor gathered = device_empty(table.rows, {in.count, in.d});
  Tensor products = device_empty(table.rows, {in.count, in.n});
  const unsigned copies = cell_blocks(in.count, in.d);
  const auto blocks = static_cast<unsigned>(in.count);
  const Tensor flag = device_empty(table.rows, {1}, ScalarType::Int);
  auto* const open = flag.mutable_data_ptr<int>();
  LAUNCH(copy_rows, copies, kHeadThreads, 0, stream, in.table, in.rows, gathered.mutable_data_ptr<float>(), in.d);
  multiply_transposed(products, factor_of(gathered, table.parts()), table);
  LAUNCH(find_similar, blocks, kHeadThreads, 0, stream, in, products.const_data_ptr<float>());
  fill_bytes(open, 0, sizeof *open, stream);
  LAUNCH(any_open, blocks_for(in.count, kHeadThreads), kHeadThreads, 0, stream, in.searches, open, in.count);
  while (read_back(open, stream)) {
    LAUNCH(copy_asked, copies, kHeadThreads, 0, stream, in, gathered.mutable_data_ptr<float>());
    multiply_transposed(products, factor_of(gathered, table.parts()), table);
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
    const Tensor longest = longest_row(v, stream);
    const auto* const bits = reinterpret_cast<const unsigned*>(longest.const_data_ptr<int64_t>());
    const Factor factor = factor_of(v, filter_parts(v));
    constexpr int64_t kScratch = int64_t{1} << 24;
    const int64_t height = std::clamp<int64_t>(kScratch / n, 1, all);
    const Words<uint64_t> keys(height * n, idx);
    const Words<Inquiry> searches(height, idx);
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
                        threshold,
                        factor.error()};
      run_chains(in, factor, stream);
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

}  // namespace

ISE_FAST_CUDA_OPERATORS(m) {
  m.impl("cycle_positives", TORCH_BOX(&cycle_positives));
}

}  // namespace ise_fast
