// Kernels of the label-preserving term; mathematics in csrc/cpu/label_preserving.h.
//
// The labels of the batch are numbered on the device, in order of their first rows, and nothing has the host wait for
// how many there are. A feature chooses one support of each label; the choices of a part of the batch are held at once.
#pragma once

#include "select.cuh"

namespace ise_fast {
namespace {

// Rows of one label form a list that starts at the first of them.
struct BatchLabels {
  int *leader, *next;   // [rows] first row with the label of row r; the next one, or -1
  int *number, *first;  // [rows] number of the label that row r leads; first row of label g
  int* count;           // how many labels
};

// leader and next; a warp a row, which looks at as many labels at once as it has lanes.
__global__ void link_labels(const int64_t* labels, BatchLabels batch, int64_t rows) {
  const int64_t r = static_cast<int64_t>(blockIdx.x) * kHeadWarps + threadIdx.x / kWarpSize;
  if (r >= rows) return;
  const int lane = threadIdx.x % kWarpSize;
  const int64_t label = labels[r];
  // The first row from `begin` on that has the label, or -1.
  const auto find = [&](int64_t begin) {
    for (; begin < rows; begin += kWarpSize) {
      const unsigned same = __ballot_sync(kWholeWarp, begin + lane < rows && labels[begin + lane] == label);
      if (same) return static_cast<int>(begin) + __ffs(static_cast<int>(same)) - 1;
    }
    return -1;
  };
  const int leader = find(0), next = find(r + 1);
  if (lane != 0) return;
  batch.leader[r] = leader;
  batch.next[r] = next;
}

// number, first and count; one block.
__global__ void number_labels(BatchLabels batch, int64_t rows) {
  __shared__ unsigned counts[kHeadWarps];
  const int64_t found = compact(
      rows, counts, [&](int64_t r) { return batch.leader[r] == r; },
      [&](int64_t r, int64_t g) {
        batch.number[r] = static_cast<int>(g);
        batch.first[g] = static_cast<int>(r);
      });
  if (threadIdx.x == 0) *batch.count = static_cast<int>(found);
}

// The similarities f_i . s of the features of a part: given, or from the products at hand,
// (f_i . f_r + lambda (Z_i,m - Z_i,o)) / n.
struct Similarities {
  const float* direct;    // [users, B k] or null
  const float* square;    // [users, B] products of the features
  const float* products;  // [users, K]
  const int64_t *labels, *nearest;
  const float* norms;
  int64_t rows, clusters, k;
  Degree degree;

  __device__ float operator()(int64_t i, int64_t r, int64_t s) const {
    if (direct) return direct[i * rows * k + s];
    const int64_t own = labels[r] >= 0 && labels[r] < clusters ? labels[r] : 0;
    const float* const z = products + i * clusters;
    return (square[i * rows + r] + degree() * (z[nearest[s]] - z[own])) / norms[s];
  }
};

// What the features of rows [begin, begin + users) met of each label: [labels, users].
struct Choices {
  int* support;
  float* similarity;
  // Derivatives of the mean with respect to all similarities, and the same transposed: [users, B k] and [B k, users], 0
  // before; or null.
  float *weights, *transposed;
  int64_t begin, users;
};

// A block a feature, a thread a label.
__global__ void choose_supports(Similarities similarity, BatchLabels batch, double tau, Choices choices,
                                double* losses) {
  __shared__ double scratch[kHeadWarps];
  constexpr double kEpsilon = 1e-6;  // both constants of the published loss
  similarity.degree = similarity.degree.read();
  const int64_t k = similarity.k;
  const int count = *batch.count, own = batch.number[batch.leader[choices.begin + blockIdx.x]];
  double top = 0;
  for (int g = threadIdx.x; g < count; g += kHeadThreads) {
    int support = -1;
    float best = 0;
    for (int64_t r = batch.first[g]; r >= 0; r = batch.next[r]) {
      for (int64_t s = r * k; s < (r + 1) * k; ++s) {
        const float value = similarity(blockIdx.x, r, s);
        if (support < 0 || (g == own ? value < best : value > best)) {
          support = static_cast<int>(s);
          best = value;
        }
      }
    }
    choices.support[g * choices.users + blockIdx.x] = support;
    choices.similarity[g * choices.users + blockIdx.x] = best;
    top = Max{}(top, best / tau);
  }
  // Everything is divided by exp(top), epsilon too: no overflow for a small temperature.
  top = block_reduce(top, Max{}, 0.0, scratch);
  double others = 0, positive = 0;
  for (int g = threadIdx.x; g < count; g += kHeadThreads) {
    const double e = exp(choices.similarity[g * choices.users + blockIdx.x] / tau - top);
    (g == own ? positive : others) += e;
  }
  others = block_sum(others, scratch) + kEpsilon * exp(-top);
  positive = block_sum(positive, scratch);
  const double sum = positive + others, ratio = positive / sum;
  const double scale = 1 / ((ratio + kEpsilon) * sum * sum * tau * static_cast<double>(similarity.rows));
  for (int g = threadIdx.x; choices.weights && g < count; g += kHeadThreads) {
    const double e = exp(choices.similarity[g * choices.users + blockIdx.x] / tau - top);
    const auto weight = static_cast<float>(e * (g == own ? -scale * others : scale * positive));
    const int64_t support = choices.support[g * choices.users + blockIdx.x], supports = similarity.rows * k;
    choices.weights[blockIdx.x * supports + support] = weight;
    choices.transposed[support * choices.users + blockIdx.x] = weight;
  }
  if (threadIdx.x == 0) losses[choices.begin + blockIdx.x] = -log(ratio + kEpsilon);
}

// With G [users, B k] the derivatives with respect to f_i . s, most of them 0:
//   dF = G S,    and dS = G^T F, which reaches the features through their supports:
//   df_i += sum over its supports of (dS_s - (dS_s . s) s) / n_s.
// A block a row of the batch. Parts of the batch come in ascending order and add to each other.
__global__ void add_through_supports(const float* support_gradient, const float* supports, const float* norms,
                                     float* gradient, int64_t d, int64_t k) {
  __shared__ double scratch[kHeadWarps];
  float* const out = gradient + blockIdx.x * d;
  for (int64_t s = blockIdx.x * k; s < (blockIdx.x + 1) * k; ++s) {
    const float *g = support_gradient + s * d, *row = supports + s * d;
    double along = 0;
    for (int64_t c = threadIdx.x; c < d; c += kHeadThreads) along += static_cast<double>(g[c]) * row[c];
    const auto scale = static_cast<float>(-block_sum(along, scratch));
    const float inverse = 1.0f / norms[s];
    for (int64_t c = threadIdx.x; c < d; c += kHeadThreads) out[c] += inverse * (g[c] + scale * row[c]);
  }
}

}  // namespace
}  // namespace ise_fast
