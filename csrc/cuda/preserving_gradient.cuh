// The gradient of the label-preserving term, as two products with a matrix that is mostly 0: each feature chose one
// support of each label. Few products of tensor cores take less than the rows that those choices name, one by one.
#pragma once

#include <algorithm>

#include "label_preserving.cuh"
#include "split.cuh"

namespace ise_fast {
namespace {

// Up to so many derivatives the products are in float32: launches that split rows would take longer.
constexpr int64_t kFewWeights = int64_t{1} << 17;

// Features whose choices of supports are held at once, in whole sectors (split.cuh).
inline int64_t users_at_once(int64_t rows, int64_t k) {
  return std::min(whole_sectors(std::max<int64_t>(at_once(int64_t{1} << 22) / (rows * k), 1)), rows);
}

// A thread a number.
__global__ void add_later_part(const float* part, float* sum, int64_t count) {
  const int64_t j = static_cast<int64_t>(blockIdx.x) * kHeadThreads + threadIdx.x;
  if (j < count) sum[j] += part[j];
}

// Of the supports, while parts of the batch come.
class PreservingGradient {
public:
  // f [B, d], supports [B k, d]
  PreservingGradient(const Tensor& f, const Tensor& supports, Parts parts, int64_t users, bool wanted)
      : features_(factor_of(f, wanted ? parts : Parts::kNone)),
        supports_(factor_of(supports, wanted ? parts : Parts::kNone)),
        weights_(device_empty(f, {wanted ? 2 * users : 0, supports.size(0)})),
        sums_(device_empty(f, {wanted ? supports.size(0) : 0, f.size(1)})),
        part_(device_empty(f, {wanted && users < f.size(0) ? supports.size(0) : 0, f.size(1)})),
        wanted_(wanted) {}

  // Of the next part, whose weights are 0 so far.
  Choices choices(int* support, float* similarity, int64_t begin, int64_t count) {
    if (!wanted_) return {support, similarity, nullptr, nullptr, begin, count};
    auto* const weights = weights_.mutable_data_ptr<float>();
    const int64_t numbers = count * weights_.size(1);
    fill_bytes(weights, 0, 2 * numbers * sizeof(float), current_stream(weights_));
    return {support, similarity, weights, weights + numbers, begin, count};
  }

  // After the choices: the gradient towards the features of this part is stored, that towards the supports kept.
  void add(Tensor& gradient, int64_t begin, int64_t count) {
    using torch::stable::narrow;
    const int64_t supports = weights_.size(1);
    const Parts parts = weight_parts(supports_.parts());
    Tensor both = torch::stable::view(weights_, {weights_.numel()});
    const auto weights = [&](int64_t from, int64_t rows, int64_t columns) {
      return torch::stable::view(narrow(both, 0, from, rows * columns), {rows, columns});
    };
    Tensor rows = narrow(gradient, 0, begin, count), &towards = begin == 0 ? sums_ : part_;
    multiply(rows, factor_of(weights(0, count, supports), parts, &supports_), supports_);
    const Factor met = features_.part(begin, count);
    multiply(towards, factor_of(weights(count * supports, supports, count), parts, &met), met);
    if (begin == 0) return;
    LAUNCH(add_later_part, blocks_for(sums_.numel(), kHeadThreads), kHeadThreads, 0, current_stream(sums_),
           part_.const_data_ptr<float>(), sums_.mutable_data_ptr<float>(), sums_.numel());
  }

  // [B k, d]
  const Tensor& of_supports() const { return sums_; }

private:
  Factor features_, supports_;
  Tensor weights_, sums_, part_;
  bool wanted_;
};

}  // namespace
}  // namespace ise_fast
