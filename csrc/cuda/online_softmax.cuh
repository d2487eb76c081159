// Softmax of features against all rows of a table in one pass over tiles of the table; mathematics in
// csrc/cpu/online_softmax.h. Columns with a part of their own in a sample's loss (targets, excluded ones) sit in slots.
//
// Nobody can look at an index on the host without waiting for the device: a sample whose indices or numbers are out of
// range is marked invalid, and its loss is NaN.
#pragma once

#include <algorithm>

#include "../math/exp_bounded.h"
#include "split.cuh"

namespace ise_fast {
namespace {

enum SlotKind : int { kEmpty = 0, kTarget = 1, kExcluded = 2, kHard = 3 };

struct Slot {
  int64_t column;
  double weight;  // of a target
  float product;  // scaled
  int kind;
};

struct RowSums {
  double rest;  // sum of exp((product - top) / tau) over the columns in no slot
  float top;    // largest scaled product
  float shrink;
  int64_t begin, end;  // range of columns
  double smooth;
  int valid, unused;
};

// What the kernels see of a batch; scale may be null (OnlineSoftmax in csrc/cpu/online_softmax.h).
struct SoftmaxBatch {
  const float *features, *table, *scale;
  Slot* slots;  // [B, width]
  RowSums* sums;
  int64_t rows, all, d, width;
  double tau;
};

__device__ inline bool is_finite(float value) {
  return fabsf(value) < INFINITY;
}

// A tile of products becomes the exponentials times the scale, 0 in slots and out of range; a block a sample.
__global__ void add_tile(SoftmaxBatch in, float* tile, int64_t from, int64_t columns) {
  __shared__ double scratch[kHeadWarps];
  const int64_t i = blockIdx.x;
  float* const z = tile + i * columns;
  Slot* const slots = in.slots + i * in.width;
  RowSums sums = in.sums[i];
  const float* const scale = in.scale ? in.scale + from : nullptr;
  const float inverse_tau = static_cast<float>(1 / in.tau);
  const auto present = [&](int64_t c) {
    return from + c >= sums.begin && from + c < sums.end && (!scale || scale[c] > 0);
  };

  double bad = 0;
  for (int64_t c = threadIdx.x; c < columns; c += kHeadThreads) {
    const float value = z[c];
    if (!is_finite(value) && from + c >= sums.begin && from + c < sums.end) bad = 1;
    // Minus infinity says "not here" from now on.
    z[c] = !present(c) ? -INFINITY : scale ? value * scale[c] : value;
  }
  bad = block_reduce(bad, Max{}, 0.0, scratch);  // its barriers also order z
  double top = sums.top;
  for (int64_t s = threadIdx.x; s < in.width; s += kHeadThreads) {
    const int64_t c = slots[s].column - from;
    if (slots[s].kind == kEmpty || c < 0 || c >= columns) continue;
    const float product = z[c];
    slots[s].product = product;
    z[c] = -INFINITY;
    if (slots[s].kind != kExcluded) top = Max{}(top, static_cast<double>(product));
  }
  __syncthreads();
  for (int64_t c = threadIdx.x; c < columns; c += kHeadThreads) top = Max{}(top, static_cast<double>(z[c]));
  top = block_reduce(top, Max{}, static_cast<double>(sums.top), scratch);

  constexpr int64_t kPiece = 64 * kHeadThreads;  // 64 float32 additions a thread, then float64
  const float largest = static_cast<float>(top);
  double rest = 0;
  for (int64_t piece = 0; piece < columns; piece += kPiece) {
    const int64_t end = piece + kPiece < columns ? piece + kPiece : columns;
    float sum = 0;
    for (int64_t c = piece + threadIdx.x; c < end; c += kHeadThreads) {
      const float e = z[c] == -INFINITY ? 0.0f : exp_bounded((z[c] - largest) * inverse_tau);
      sum += e;
      z[c] = scale && e > 0 ? e * scale[c] : e;
    }
    rest += sum;
  }
  rest = block_sum(rest, scratch);
  if (threadIdx.x != 0) return;
  const double shrink =
      sums.top == largest ? 1.0 : exp((static_cast<double>(sums.top) - largest) * static_cast<double>(inverse_tau));
  sums.rest = sums.rest * shrink + rest;
  sums.top = largest;
  sums.shrink = static_cast<float>(shrink);
  if (bad != 0) sums.valid = 0;
  in.sums[i] = sums;
}

// mean = mean x shrink + part; a thread a number.
__global__ void add_part(const RowSums* sums, const float* part, float* mean, int64_t d, bool first) {
  const auto [i, c] = cell_of_thread(d);
  if (c >= d) return;
  mean[i * d + c] = first ? part[i * d + c] : mean[i * d + c] * sums[i].shrink + part[i * d + c];
}

// 1 where a column is in the sample's range; `rows` of them.
__global__ void fill_range(const RowSums* sums, float* mask, int64_t from, int64_t columns) {
  const auto [i, c] = cell_of_thread(columns);
  if (c < columns) mask[i * columns + c] = from + c >= sums[i].begin && from + c < sums[i].end ? 1.0f : 0.0f;
}

__global__ void add_numbers(const float* part, float* sum, int64_t count) {
  const int64_t j = static_cast<int64_t>(blockIdx.x) * kHeadThreads + threadIdx.x;
  if (j < count) sum[j] += part[j];
}

// The exponentials of a sample's targets next to the sum of all others, each without cancellation (TargetShares of
// csrc/cpu/online_softmax.h). Made by all threads of a block together.
class BlockShares {
public:
  __device__ BlockShares(const Slot* slots, int64_t width, float top, double rest, double tau, double* scratch)
      : top_(top), tau_(tau) {
    double sum = 0, largest = -1;
    int64_t first = width;
    for (int64_t s = threadIdx.x; s < width; s += kHeadThreads) {
      if (slots[s].kind != kTarget) continue;
      const double e = exponential(slots[s].product);
      sum += e;
      if (e > largest) {
        largest = e;
        first = s;
      }
    }
    total_ = rest + block_sum(sum, scratch);
    const double most = block_reduce(largest, Max{}, -1.0, scratch);
    const double where = largest == most ? static_cast<double>(first) : static_cast<double>(width);
    largest_ = static_cast<int64_t>(block_reduce(where, Min{}, static_cast<double>(width), scratch));
    sum = 0;
    for (int64_t s = threadIdx.x; s < width; s += kHeadThreads) {
      if (slots[s].kind == kTarget && s != largest_) sum += exponential(slots[s].product);
    }
    beside_largest_ = rest + block_sum(sum, scratch);
  }
  __device__ double exponential(float product) const { return exp((static_cast<double>(product) - top_) / tau_); }
  __device__ double total() const { return total_; }
  __device__ double others(int64_t s, double e) const { return s == largest_ ? beside_largest_ : total_ - e; }
  __device__ double surprise(int64_t s, const Slot& slot) const {
    const double e = exponential(slot.product);
    return e > 1e-100 ? log1p(others(s, e) / e) : log(total_) - (static_cast<double>(slot.product) - top_) / tau_;
  }

private:
  double total_, beside_largest_, tau_;
  float top_;
  int64_t largest_;
};

// gradient = factor[i] x mean + spread[i] x column sum + sum over slots of coefficient x table row; a thread a number.
__global__ void slot_gradient(SoftmaxBatch in, const double* factor, const double* spread, const float* column_sum,
                              int64_t sum_rows, const double* coefficient, float* gradient) {
  const auto [i, c] = cell_of_thread(in.d);
  if (c >= in.d) return;
  float sum = factor ? static_cast<float>(factor[i]) * gradient[i * in.d + c] : 0.0f;
  const Slot* const slots = in.slots + i * in.width;
  for (int64_t s = 0; s < in.width; ++s) {
    if (slots[s].kind == kEmpty) continue;
    sum += static_cast<float>(coefficient[i * in.width + s]) * in.table[slots[s].column * in.d + c];
  }
  if (column_sum) sum += static_cast<float>(spread[i]) * column_sum[(sum_rows > 1 ? i : 0) * in.d + c];
  gradient[i * in.d + c] = in.sums[i].valid ? sum : NAN;
}

// Mean of the samples' losses, by one block, in one order.
__global__ void mean_loss(const double* losses, float* loss, int64_t rows) {
  __shared__ double scratch[kHeadWarps];
  double sum = 0;
  for (int64_t i = threadIdx.x; i < rows; i += kHeadThreads) sum += losses[i];
  sum = block_sum(sum, scratch);
  if (threadIdx.x == 0) *loss = static_cast<float>(sum / static_cast<double>(rows));
}

// Memory for n T on the device of `like`, as long as this lives.
template <class T>
class Words {
public:
  Words(int64_t n, const Tensor& like)
      : memory_(device_empty(like, {std::max<int64_t>(n, 1) * static_cast<int64_t>(sizeof(T)) / 8 + 1},
                             ScalarType::Long)) {}
  T* data() const { return reinterpret_cast<T*>(memory_.mutable_data_ptr<int64_t>()); }

private:
  Tensor memory_;
};

// Columns of a tile for `rows` samples.
inline int64_t softmax_tile_width(int64_t rows, int64_t all) {
  constexpr int64_t kTileNumbers = int64_t{1} << 24;
  return std::clamp<int64_t>(kTileNumbers / rows, 1, std::max<int64_t>(all, 1));
}

// Fills the sums of all samples; mean: null or a tensor [B, d] that receives the sums of e scale times the row.
inline void run_online_softmax(const SoftmaxBatch& in, const Tensor& features, const Tensor& table, Tensor* mean,
                               cudaStream_t stream) {
  const int64_t width = std::min(softmax_tile_width(in.rows, in.all), rows_split_at_once(in.d));
  const Factor left = factor_of(features, Parts::kBoth);
  Tensor tile = device_empty(features, {in.rows, width});
  Tensor part = device_empty(features, {mean ? in.rows : 0, in.d}), all_rows = table;
  if (mean && in.all == 0) fill_bytes(mean->mutable_data_ptr<float>(), 0, in.rows * in.d * sizeof(float), stream);
  for (int64_t from = 0; from < in.all; from += width) {
    const int64_t columns = std::min(width, in.all - from);
    if (columns < width) tile = device_empty(features, {in.rows, columns});
    const Factor right = factor_of(torch::stable::narrow(all_rows, 0, from, columns), Parts::kBoth);
    multiply_transposed(tile, left, right);
    LAUNCH(add_tile, static_cast<unsigned>(in.rows), kHeadThreads, 0, stream, in, tile.mutable_data_ptr<float>(), from,
           columns);
    if (!mean) continue;
    multiply(part, factor_of(tile, Parts::kBoth, &right), right);
    LAUNCH(add_part, cell_blocks(in.rows, in.d), kHeadThreads, 0, stream, in.sums, part.const_data_ptr<float>(),
           mean->mutable_data_ptr<float>(), in.d, from == 0);
  }
}

}  // namespace
}  // namespace ise_fast
