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
  float *similarity, *weight;  // weight: derivative of the mean with respect to the similarity
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
  for (int g = threadIdx.x; g < count; g += kHeadThreads) {
    const double e = exp(choices.similarity[g * choices.users + blockIdx.x] / tau - top);
    choices.weight[g * choices.users + blockIdx.x] =
        static_cast<float>(e * (g == own ? -scale * others : scale * positive));
  }
  if (threadIdx.x == 0) losses[choices.begin + blockIdx.x] = -log(ratio + kEpsilon);
}

// With g_is the derivative with respect to f_i . s:
//   df_i += sum over s of g_is s,    df_own += sum over i of g_is (f_i - (f_i . s) s) / n_s.
// Row i of the batch, a thread a number of its gradient, terms in ascending order: what the part of the batch in
// `choices` has to do with it. Parts come in ascending order and add to each other.
//
// A label has one choice of each feature, and few of them are supports of row i: the block collects these first, so
// that the work grows with B x labels, not with B x B.
__global__ void preserving_gradient(Choices choices, BatchLabels batch, const float* features, const float* supports,
                                    const float* norms, float* gradient, int64_t rows, int64_t d, int64_t k) {
  __shared__ unsigned counts[kHeadWarps];
  __shared__ int chosen[kHeadThreads], user[kHeadThreads];
  __shared__ float factor[kHeadThreads], similar[kHeadThreads];
  const Cell cell = cell_of_thread(d);
  const int64_t i = cell.row, c = cell.column < d ? cell.column : 0, mine = i - choices.begin;
  float sum = choices.begin > 0 && cell.column < d ? gradient[i * d + c] : 0.0f;
  if (0 <= mine && mine < choices.users) {
    const int count = *batch.count;
    for (int start = 0; start < count; start += kHeadThreads) {
      const int g = start + static_cast<int>(threadIdx.x),
                end = count - start < kHeadThreads ? count - start : kHeadThreads;
      if (g < count) {
        chosen[threadIdx.x] = choices.support[g * choices.users + mine];
        factor[threadIdx.x] = choices.weight[g * choices.users + mine];
      }
      __syncthreads();
      for (int t = 0; t < end; ++t) sum += factor[t] * supports[chosen[t] * d + c];
      __syncthreads();
    }
  }
  const int64_t own = batch.number[batch.leader[i]] * choices.users;
  for (int64_t start = 0; start < choices.users; start += kHeadThreads) {
    const int64_t tested = choices.users - start < kHeadThreads ? choices.users - start : kHeadThreads;
    const int64_t found = compact(
        tested, counts,
        [&](int64_t t) {
          const int s = choices.support[own + start + t];
          return s >= i * k && s < (i + 1) * k;
        },
        [&](int64_t t, int64_t place) {
          const int64_t u = start + t;
          chosen[place] = choices.support[own + u];
          user[place] = static_cast<int>(choices.begin + u);
          factor[place] = choices.weight[own + u] / norms[chosen[place]];
          similar[place] = choices.similarity[own + u];
        });
    for (int t = 0; t < found; ++t) {
      const float towards = features[user[t] * d + c] - similar[t] * supports[chosen[t] * d + c];
      sum += factor[t] * towards;
    }
    __syncthreads();  // nobody may overwrite the list before every thread has read it
  }
  if (cell.column < d) gradient[i * d + c] = sum;
}

}  // namespace
}  // namespace ise_fast
