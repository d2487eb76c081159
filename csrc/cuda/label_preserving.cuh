// Kernels of the label-preserving term; mathematics in csrc/cpu/label_preserving.h.
//
// The first row of a label stands for the label; rows of one label form a list. No list of labels, no count: nothing
// that the host would have to wait for.
#pragma once

#include "head.cuh"

namespace ise_fast {
namespace {

// leader: first row with the label of row r. next: the next one, or -1. A thread a row.
__global__ void link_labels(const int64_t* labels, int* leader, int* next, int64_t rows) {
  const int64_t r = static_cast<int64_t>(blockIdx.x) * kHeadThreads + threadIdx.x;
  if (r >= rows) return;
  int64_t first = 0, after = r + 1;
  while (labels[first] != labels[r]) ++first;
  while (after < rows && labels[after] != labels[r]) ++after;
  leader[r] = static_cast<int>(first);
  next[r] = after < rows ? static_cast<int>(after) : -1;
}

// The similarities f_i . s: given, or from the products at hand, (f_i . f_r + lambda (Z_i,m - Z_i,o)) / n.
struct Similarities {
  const float* direct;    // [rows of the block, B k] or null
  const float* square;    // [B, B] products of the features
  const float* products;  // [B, K]
  const int64_t *labels, *nearest;
  const float* norms;
  int64_t rows, clusters, k;
  float degree;

  __device__ float operator()(int64_t i, int64_t r, int64_t s) const {
    if (direct) return direct[i * rows * k + s];
    const int64_t own = labels[r] >= 0 && labels[r] < clusters ? labels[r] : 0;
    const float* const z = products + i * clusters;
    return (square[i * rows + r] + degree * (z[nearest[s]] - z[own])) / norms[s];
  }
};

// What feature i met of each label, at the label's leader; support -1 elsewhere.
struct Choice {
  int support;
  float similarity, weight, unused;  // weight: derivative of the mean with respect to the similarity
};

// A block a feature, a thread a label. Feature i of the block is row begin + i of the batch.
__global__ void choose_supports(Similarities similarity, const int* leader, const int* next, int64_t begin, double tau,
                                Choice* choices, double* losses) {
  __shared__ double scratch[kHeadWarps];
  constexpr double kEpsilon = 1e-6;  // both constants of the published loss
  const int64_t rows = similarity.rows, k = similarity.k, i = begin + blockIdx.x;
  Choice* const choice = choices + i * rows;
  double top = 0;
  for (int64_t g = threadIdx.x; g < rows; g += kHeadThreads) {
    Choice best = {-1, 0, 0, 0};
    if (leader[g] == g) {
      const bool own = g == leader[i];
      for (int64_t r = g; r >= 0; r = next[r]) {
        for (int64_t s = r * k; s < (r + 1) * k; ++s) {
          const float value = similarity(blockIdx.x, r, s);
          if (best.support < 0 || (own ? value < best.similarity : value > best.similarity)) {
            best.support = static_cast<int>(s);
            best.similarity = value;
          }
        }
      }
      top = Max{}(top, best.similarity / tau);
    }
    choice[g] = best;
  }
  // Everything is divided by exp(top), epsilon too: no overflow for a small temperature.
  top = block_reduce(top, Max{}, 0.0, scratch);
  double others = 0, positive = 0;
  for (int64_t g = threadIdx.x; g < rows; g += kHeadThreads) {
    if (choice[g].support < 0) continue;
    const double e = exp(choice[g].similarity / tau - top);
    (g == leader[i] ? positive : others) += e;
  }
  others = block_sum(others, scratch) + kEpsilon * exp(-top);
  positive = block_sum(positive, scratch);
  const double sum = positive + others, ratio = positive / sum;
  const double scale = 1 / ((ratio + kEpsilon) * sum * sum * tau * static_cast<double>(rows));
  for (int64_t g = threadIdx.x; g < rows; g += kHeadThreads) {
    if (choice[g].support < 0) continue;
    const double e = exp(choice[g].similarity / tau - top);
    choice[g].weight = static_cast<float>(e * (g == leader[i] ? -scale * others : scale * positive));
  }
  if (threadIdx.x == 0) losses[i] = -log(ratio + kEpsilon);
}

// With g_is the derivative with respect to f_i . s:
//   df_i += sum over s of g_is s,    df_own += sum over i of g_is (f_i - (f_i . s) s) / n_s.
// A thread a number of the gradient, terms in ascending order.
__global__ void preserving_gradient(const Choice* choices, const int* leader, const float* features,
                                    const float* supports, const float* norms, float* gradient, int64_t rows, int64_t d,
                                    int64_t k) {
  const int64_t c = static_cast<int64_t>(blockIdx.x) * kHeadThreads + threadIdx.x, i = blockIdx.y;
  if (c >= d) return;
  float sum = 0;
  for (int64_t g = 0; g < rows; ++g) {
    const Choice choice = choices[i * rows + g];
    if (choice.support >= 0) sum += choice.weight * supports[choice.support * d + c];
  }
  for (int64_t user = 0; user < rows; ++user) {
    const Choice choice = choices[user * rows + leader[i]];
    if (choice.support / k != i) continue;
    const float towards = features[user * d + c] - choice.similarity * supports[choice.support * d + c];
    sum += choice.weight / norms[choice.support] * towards;
  }
  gradient[i * d + c] = sum;
}

}  // namespace
}  // namespace ise_fast
