// Contrast with several weighted targets, as in csrc/cpu/soft_nce.cpp. Nothing waits for the device.
#include <optional>
#include <tuple>

#include "../check_methods.h"
#include "hardest.cuh"
#include "online_softmax.cuh"

namespace ise_fast {
namespace {

struct SoftTargets {
  const int64_t *columns, *ranges, *excluded;  // [B, s], [B, 2] or null, [B, e] or null
  const float *weights, *smooth;               // [B, s], [B] or null
  int64_t s, e;
};

// The slots of each sample: its distinct targets, then its distinct excluded columns; a block a sample. Weights of a
// repeated column are added in order.
__global__ void fill_slots(SoftmaxBatch in, SoftTargets from) {
  __shared__ int scratch[kHeadWarps];
  const int64_t i = blockIdx.x;
  const int64_t begin = from.ranges ? from.ranges[2 * i] : 0, end = from.ranges ? from.ranges[2 * i + 1] : in.all;
  const float smooth = from.smooth ? from.smooth[i] : 0.0f;
  const int64_t *y = from.columns + i * from.s, *out = from.excluded ? from.excluded + i * from.e : nullptr;
  const float* w = from.weights + i * from.s;
  int bad = !(0 <= begin && begin <= end && end <= in.all) || !(0 <= smooth && smooth <= 1);
  for (int64_t s = threadIdx.x; s < in.width; s += kHeadThreads) {
    Slot slot = {0, 0, 0, kEmpty};
    if (s < from.s) {
      const int64_t c = y[s];
      bad |= c < -1 || c >= in.all;
      if (c >= 0 && c < in.all) {
        bad |= c < begin || c >= end || !(w[s] >= 0 && is_finite(w[s]));
        bool first = true;
        for (int64_t t = 0; t < s; ++t) first &= y[t] != c;
        for (int64_t t = 0; t < from.e; ++t) bad |= out[t] == c;
        for (int64_t t = s; first && t < from.s; ++t) slot.weight += y[t] == c ? w[t] : 0.0f;
        if (first) {
          slot.column = c;
          slot.kind = kTarget;
        }
      }
    } else if (s < from.s + from.e) {
      const int64_t c = out[s - from.s];
      bad |= c < -1 || c >= in.all;
      bool first = c >= begin && c < end && c < in.all;
      for (int64_t t = 0; t < s - from.s; ++t) first &= out[t] != c;
      for (int64_t t = 0; t < from.s; ++t) first &= y[t] != c;  // two slots of one column would race
      if (first) slot = {c, 0, 0, kExcluded};
    }
    in.slots[i * in.width + s] = slot;
  }
  bad = block_reduce(bad, Max{}, 0, scratch);
  if (threadIdx.x == 0) {
    in.sums[i] = {0, -INFINITY, 1, bad ? 0 : begin, bad ? 0 : end, smooth, !bad, 0};
  }
}

// Fills the slots after the first `place` with the hardest negatives of each sample; a block a sample.
__global__ void find_hardest(SoftmaxBatch in, float* products, const unsigned* longest, uint64_t* keys,
                             int64_t first_row, int64_t place, int64_t negatives, double unit_error) {
  __shared__ unsigned shared[kBins];
  __shared__ double scratch[kHeadWarps];
  const int64_t i = first_row + blockIdx.x;
  float* const z = products + static_cast<int64_t>(blockIdx.x) * in.all;
  uint64_t* const key = keys + static_cast<int64_t>(blockIdx.x) * in.all;
  const float* const feature = in.features + i * in.d;
  Slot* const slots = in.slots + i * in.width;
  RowSums sums = in.sums[i];
  double bad = 0;
  for (int64_t j = threadIdx.x; j < in.all; j += kHeadThreads) {
    if (!is_finite(z[j])) bad = 1;
  }
  bad = block_reduce(bad, Max{}, 0.0, scratch);  // its barriers also order z
  for (int64_t s = threadIdx.x; s < place; s += kHeadThreads) {
    if (slots[s].kind != kEmpty) z[slots[s].column] = -INFINITY;  // says "not here" from now on
  }
  __syncthreads();
  const double error = unit_error * sqrt(warp_dot(feature, feature, in.d)) * length_of_bits(*longest) + kUnderflow;
  const int64_t found = hardest_of_row(
      z, feature, in.table, key, in.all, in.d, negatives, error, shared,
      [&](int64_t j) { return j >= sums.begin && j < sums.end && z[j] != -INFINITY; },
      [&](int64_t j, int64_t p, float similarity) { slots[place + p] = {j, 0, similarity, kHard}; });
  for (int64_t p = found + threadIdx.x; p < negatives; p += kHeadThreads) slots[place + p] = {0, 0, 0, kEmpty};
  for (int64_t s = threadIdx.x / kWarpSize; s < place; s += kHeadWarps) {
    if (slots[s].kind == kEmpty) continue;
    const float product = static_cast<float>(warp_dot(feature, in.table + slots[s].column * in.d, in.d)) + 0.0f;
    if (threadIdx.x % kWarpSize == 0) slots[s].product = product;
  }
  __syncthreads();
  double top = -INFINITY, rest = 0;
  for (int64_t s = threadIdx.x; s < in.width; s += kHeadThreads) {
    if (slots[s].kind == kTarget || slots[s].kind == kHard) top = Max{}(top, static_cast<double>(slots[s].product));
  }
  top = block_reduce(top, Max{}, -static_cast<double>(INFINITY), scratch);
  for (int64_t s = threadIdx.x; s < in.width; s += kHeadThreads) {
    if (slots[s].kind == kHard) rest += exp((static_cast<double>(slots[s].product) - top) / in.tau);
  }
  rest = block_sum(rest, scratch);
  if (threadIdx.x != 0) return;
  sums.top = static_cast<float>(top);
  sums.rest = rest;
  if (bad != 0) sums.valid = 0;
  in.sums[i] = sums;
}

// Loss of each sample and the weights of its gradient (formulas in csrc/cpu/soft_nce.cpp); a block a sample.
__global__ void finish_soft(SoftmaxBatch in, const float* column_sum, int64_t sum_rows, bool hard, double* losses,
                            double* factor, double* spread, double* coefficient) {
  __shared__ double scratch[kHeadWarps];
  const int64_t i = blockIdx.x;
  const Slot* const slots = in.slots + i * in.width;
  double* const weights = coefficient + i * in.width;
  const RowSums sums = in.sums[i];
  const BlockShares shares(slots, in.width, sums.top, sums.rest, in.tau, scratch);
  double total = 0, size = 0, logits = 0;
  for (int64_t s = threadIdx.x; s < in.width; s += kHeadThreads) {
    const int kind = slots[s].kind;
    total += slots[s].weight;
    if (kind == kEmpty || hard == (kind == kExcluded)) continue;
    size += hard ? 1 : kind == kExcluded ? -1 : 0;
    logits += hard ? slots[s].product : kind == kExcluded ? -slots[s].product : 0.0f;
  }
  total = block_sum(total, scratch);
  size = block_sum(size, scratch) + (hard ? 0.0 : static_cast<double>(sums.end - sums.begin));
  logits = block_sum(logits, scratch);
  if (column_sum) logits += warp_dot(in.features + i * in.d, column_sum + (sum_rows > 1 ? i : 0) * in.d, in.d);
  const bool any = total > 0;
  const double scale = 1 / (static_cast<double>(in.rows) * in.tau), keep = 1 - sums.smooth;
  const double share = any ? total / shares.total() : 0, each = any ? sums.smooth * total / size : 0;
  double loss = 0;
  for (int64_t s = threadIdx.x; s < in.width; s += kHeadThreads) {
    double weight = 0;
    if (!any || slots[s].kind == kEmpty) {
      weight = 0;
    } else if (slots[s].kind == kTarget) {
      const double e = shares.exponential(slots[s].product), own = keep * slots[s].weight;
      if (own > 0) loss += own * shares.surprise(s, slots[s]);
      weight = (e * (total - own) - own * shares.others(s, e)) / shares.total() - (hard ? each : 0.0);
    } else if (slots[s].kind == kHard) {
      weight = share * shares.exponential(slots[s].product) - each;
    } else {
      weight = hard ? 0.0 : each;
    }
    weights[s] = weight * scale;
  }
  loss = block_sum(loss, scratch);
  if (threadIdx.x != 0) return;
  if (each > 0) loss += sums.smooth * total * (log(shares.total()) + (sums.top - logits / size) / in.tau);
  losses[i] = sums.valid ? loss : NAN;
  factor[i] = share * scale;
  spread[i] = -each * scale;
}

std::tuple<Tensor, Tensor> soft_nce_loss(const Tensor& features, const Tensor& table, const Tensor& columns,
                                         const Tensor& weights, double temperature, const std::optional<Tensor>& smooth,
                                         int64_t negatives, const std::optional<Tensor>& ranges,
                                         const std::optional<Tensor>& excluded, bool needs_gradient) {
  check_soft_nce_loss(features, table, columns, weights, temperature, smooth, negatives, ranges, excluded);
  check_matrix(features, "features");
  const DeviceScope device(features);
  const auto contiguous = [](const std::optional<Tensor>& tensor) {
    return tensor ? std::optional(device_contiguous(*tensor)) : std::nullopt;
  };
  const Tensor f = device_contiguous(features), v = device_contiguous(table);
  const Tensor y = device_contiguous(columns), w = device_contiguous(weights);
  const auto a = contiguous(smooth), bounds = contiguous(ranges), out = contiguous(excluded);
  const int64_t rows = f.size(0), d = f.size(1), all = v.size(0), s = y.size(1), e = out ? out->size(1) : 0;
  const int64_t hard = std::min(negatives, all), width = s + e + hard;
  const cudaStream_t stream = current_stream(f);
  const Words<Slot> slots(rows * width, y);
  const Words<RowSums> states(rows, y);
  const Words<double> losses(rows, y), factor(rows, y), spread(rows, y), coefficient(rows * width, y);
  Tensor gradient = device_empty(f, {needs_gradient ? rows : 0, d});
  const SoftmaxBatch in = {f.const_data_ptr<float>(),
                           v.const_data_ptr<float>(),
                           nullptr,
                           slots.data(),
                           states.data(),
                           rows,
                           all,
                           d,
                           width,
                           temperature};
  const SoftTargets from = {y.const_data_ptr<int64_t>(),
                            bounds ? bounds->const_data_ptr<int64_t>() : nullptr,
                            out ? out->const_data_ptr<int64_t>() : nullptr,
                            w.const_data_ptr<float>(),
                            a ? a->const_data_ptr<float>() : nullptr,
                            s,
                            e};
  LAUNCH(fill_slots, static_cast<unsigned>(rows), kHeadThreads, 0, stream, in, from);

  // Sum of the table over each sample's range, which smoothing needs; one row stands for all without ranges.
  const int64_t sum_rows = bounds ? rows : 1;
  Tensor column_sum = device_zeros(f, {sum_rows, d});
  const bool spreads = a && hard == 0;
  if (hard > 0) {
    multiply_by_blocks(f, v, stream, [&](const ProductBlock& block) {
      LAUNCH(find_hardest, static_cast<unsigned>(block.count), kHeadThreads, 0, stream, in, block.products,
             block.longest, block.keys, block.begin, s + e, hard, block.error);
    });
  } else {
    run_online_softmax(in, f, v, needs_gradient ? &gradient : nullptr, stream);
    const int64_t tile = softmax_tile_width(sum_rows, all);
    Tensor part = device_empty(f, {sum_rows, d}), every = v;
    for (int64_t begin = 0; spreads && begin < all; begin += tile) {
      const int64_t count = std::min(tile, all - begin);
      Tensor mask = device_empty(f, {sum_rows, count});
      LAUNCH(fill_range, cell_blocks(sum_rows, count), kHeadThreads, 0, stream, states.data(),
             mask.mutable_data_ptr<float>(), begin, count);
      matmul(part, mask, torch::stable::narrow(every, 0, begin, count));
      LAUNCH(add_numbers, blocks_for(sum_rows * d, kHeadThreads), kHeadThreads, 0, stream, part.const_data_ptr<float>(),
             column_sum.mutable_data_ptr<float>(), sum_rows * d);
    }
  }
  const float* const sums = spreads ? column_sum.const_data_ptr<float>() : nullptr;
  LAUNCH(finish_soft, static_cast<unsigned>(rows), kHeadThreads, 0, stream, in, sums, sum_rows, hard > 0, losses.data(),
         factor.data(), spread.data(), coefficient.data());
  if (needs_gradient) {
    LAUNCH(slot_gradient, cell_blocks(rows, d), kHeadThreads, 0, stream, in, hard > 0 ? nullptr : factor.data(),
           spread.data(), sums, sum_rows, coefficient.data(), gradient.mutable_data_ptr<float>());
  }
  Tensor loss = device_empty(f, {});
  LAUNCH(mean_loss, 1, kHeadThreads, 0, stream, losses.data(), loss.mutable_data_ptr<float>(), rows);
  return {loss, gradient};
}

}  // namespace

ISE_FAST_CUDA_OPERATORS(m) {
  m.impl("soft_nce_loss", TORCH_BOX(&soft_nce_loss));
}

}  // namespace ise_fast
