// The hybrid memory of SpCL, as in csrc/cpu/groups.cpp.
#include <string>
#include <tuple>

#include "../check_methods.h"
#include "online_softmax.cuh"

namespace ise_fast {
namespace {

__global__ void group_scales(const int64_t* counts, float* scale, int64_t groups) {
  const int64_t c = static_cast<int64_t>(blockIdx.x) * kHeadThreads + threadIdx.x;
  if (c < groups) scale[c] = counts[c] > 0 ? 1.0f / static_cast<float>(counts[c]) : 0.0f;
}

__global__ void group_slots(const int64_t* labels, const int64_t* counts, Slot* slots, RowSums* sums, int64_t rows,
                            int64_t groups) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kHeadThreads + threadIdx.x;
  if (i >= rows) return;
  const int64_t y = labels[i];
  const bool valid = y >= 0 && y < groups && counts[y] > 0;
  slots[i] = {valid ? y : 0, 1, 0, valid ? kTarget : kEmpty};
  sums[i] = {0, -INFINITY, 1, 0, groups, 0, valid, 0};
}

// Loss of each sample, and the weights of its gradient; a thread a sample.
__global__ void finish_groups(SoftmaxBatch in, double eps, double* losses, double* factor, double* coefficient) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kHeadThreads + threadIdx.x;
  if (i >= in.rows) return;
  const RowSums sums = in.sums[i];
  const double top = sums.top / in.tau, own = exp((static_cast<double>(in.slots[i].product) - sums.top) / in.tau);
  const double others = sums.rest + eps * exp(-top < 700 ? -top : 700.0), total = own + others, p = own / total;
  losses[i] = sums.valid ? -(others < 0.5 * total ? log1p(eps - others / total) : log(p + eps)) : NAN;
  factor[i] = p / (p + eps) / (total * static_cast<double>(in.rows) * in.tau);
  coefficient[i] = sums.valid ? -others * factor[i] * in.scale[in.slots[i].column] : 0;
}

std::tuple<Tensor, Tensor> group_nce_loss(const Tensor& features, const Tensor& sums, const Tensor& counts,
                                          const Tensor& labels, double temperature, double eps, bool needs_gradient) {
  check_group_nce_loss(features, sums, counts, labels, temperature, eps);
  check_matrix(features, "features");
  const DeviceScope device(features);
  const Tensor f = device_contiguous(features), s = device_contiguous(sums);
  const Tensor n = device_contiguous(counts), y = device_contiguous(labels);
  const int64_t rows = f.size(0), d = f.size(1), groups = s.size(0);
  const cudaStream_t stream = current_stream(f);
  const Words<Slot> slots(rows, y);
  const Words<RowSums> states(rows, y);
  const Words<double> losses(rows, y), factor(rows, y), coefficient(rows, y);
  Tensor scale = device_empty(f, {groups}), loss = device_empty(f, {});
  Tensor gradient = device_empty(f, {needs_gradient ? rows : 0, d});
  const SoftmaxBatch in = {f.const_data_ptr<float>(),
                           s.const_data_ptr<float>(),
                           scale.const_data_ptr<float>(),
                           slots.data(),
                           states.data(),
                           rows,
                           groups,
                           d,
                           1,
                           temperature};
  if (groups > 0) {
    LAUNCH(group_scales, blocks_for(groups, kHeadThreads), kHeadThreads, 0, stream, n.const_data_ptr<int64_t>(),
           scale.mutable_data_ptr<float>(), groups);
  }
  LAUNCH(group_slots, blocks_for(rows, kHeadThreads), kHeadThreads, 0, stream, y.const_data_ptr<int64_t>(),
         n.const_data_ptr<int64_t>(), slots.data(), states.data(), rows, groups);
  run_online_softmax(in, f, s, needs_gradient ? &gradient : nullptr, stream);
  LAUNCH(finish_groups, blocks_for(rows, kHeadThreads), kHeadThreads, 0, stream, in, eps, losses.data(), factor.data(),
         coefficient.data());
  if (needs_gradient) {
    LAUNCH(slot_gradient, cell_blocks(rows, d), kHeadThreads, 0, stream, in, factor.data(), nullptr, nullptr, 0,
           coefficient.data(), gradient.mutable_data_ptr<float>());
  }
  LAUNCH(mean_loss, 1, kHeadThreads, 0, stream, losses.data(), loss.mutable_data_ptr<float>(), rows);
  return {loss, gradient};
}

__global__ void scaled(const float* gradient, const float* grad, float* out, int64_t count) {
  const int64_t j = static_cast<int64_t>(blockIdx.x) * kHeadThreads + threadIdx.x;
  if (j < count) out[j] = *grad * gradient[j];
}

Tensor loss_backward(const Tensor& grad, const Tensor& features, const Tensor& gradient, std::string) {
  check_loss_backward(grad, features, gradient);
  const DeviceScope device(features);
  Tensor out = device_empty(gradient, gradient.sizes());
  LAUNCH(scaled, blocks_for(out.numel(), kHeadThreads), kHeadThreads, 0, current_stream(features),
         gradient.const_data_ptr<float>(), grad.const_data_ptr<float>(), out.mutable_data_ptr<float>(), out.numel());
  return out;
}

// A block for a tile of columns of an entry of touched: the group's rows in order, if no entry before names the same
// group.
template <class S>
__global__ void sum_groups(S* sums, const float* table, const int64_t* indptr, const int64_t* members,
                           const int64_t* touched, int64_t groups, int64_t rows, int64_t listed, int64_t d) {
  __shared__ int scratch[kHeadWarps];
  const auto [i, c] = cell_of_thread(d);
  const int64_t g = touched[i];
  int earlier = 0;
  for (int64_t r = threadIdx.x; r < i; r += kHeadThreads) earlier |= touched[r] == g;
  if (block_reduce(earlier, Max{}, 0, scratch) != 0 || g < 0 || g >= groups) return;
  const int64_t begin = indptr[g] < 0 ? 0 : indptr[g], end = indptr[g + 1] > listed ? listed : indptr[g + 1];
  if (c >= d) return;
  double sum = 0;
  for (int64_t p = begin; p < end; ++p) {
    const int64_t r = members[p];
    if (r >= 0 && r < rows) sum += table[r * d + c];
  }
  sums[g * d + c] = static_cast<S>(sum);
}

void refresh_groups_(Tensor sums, const Tensor& table, const Tensor& indptr, const Tensor& rows,
                     const Tensor& touched) {
  check_refresh_groups(sums, table, indptr, rows, touched);
  const int64_t d = table.size(1), count = touched.numel();
  if (count == 0 || d == 0) return;
  const DeviceScope device(table);
  const Uninterrupted whole;  // what it writes is the caller's
  const Tensor x = contiguous_apart(table, sums), offsets = device_contiguous(indptr);
  const Tensor members = device_contiguous(rows), ids = device_contiguous(touched);
  const auto launch_for = [&]<class S>(S*) {
    LAUNCH(sum_groups<S>, cell_blocks(count, d), kHeadThreads, 0, current_stream(x), sums.mutable_data_ptr<S>(),
           x.const_data_ptr<float>(), offsets.const_data_ptr<int64_t>(), members.const_data_ptr<int64_t>(),
           ids.const_data_ptr<int64_t>(), sums.size(0), x.size(0), members.numel(), d);
  };
  if (sums.scalar_type() == ScalarType::Double) {
    launch_for(static_cast<double*>(nullptr));
  } else {
    launch_for(static_cast<float*>(nullptr));
  }
}

}  // namespace

ISE_FAST_CUDA_OPERATORS(m) {
  m.impl("group_nce_loss", TORCH_BOX(&group_nce_loss));
  m.impl("loss_backward", TORCH_BOX(&loss_backward));
  m.impl("refresh_groups_", TORCH_BOX(&refresh_groups_));
}

}  // namespace ise_fast
