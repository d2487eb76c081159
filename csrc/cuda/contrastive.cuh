// Kernels of the contrastive term; mathematics in csrc/cpu/softmax.h and csrc/cpu/contrastive.h.
//
// Row r of sample i is the feature (r = 0) or a support. A support's cosines with the centroids come from the feature's
// products and the Gram matrix, or, without one, from products of the support itself, a tile of columns at a time.
#pragma once

#include "../math/exp_bounded.h"
#include "head.cuh"

namespace ise_fast {
namespace {

struct RowState {
  float own, inverse_norm, top;
  float shrink;  // what sums relative to the top before are multiplied by (wide_loss.cuh)
  double s, t;
  // Of its exponentials in the gradient, e^(x - shift), and of its own centroid (sample_losses).
  float weight, shift, own_weight;
};

struct Samples {
  const float *features, *centroids;
  const int64_t* labels;
  const float* products;  // [count, clusters]
  const float* gram;      // [clusters, clusters] or null
  const int64_t* nearest;
  const float *supports, *norms;
  int64_t count, clusters, d, k;
  Degree degree;
};

// Where each row starts: its cosine with the own centroid. A warp a row.
__global__ void row_states(Samples in, RowState* states) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kHeadWarps + threadIdx.x / kWarpSize, rows = 1 + in.k;
  if (row >= in.count * rows) return;
  const int64_t i = row / rows, own = in.labels[i], s = i * in.k + row % rows - 1;
  const bool valid = own >= 0 && own < in.clusters;
  const float* const centroid = in.centroids + (valid ? own : 0) * in.d;
  const float z_own = in.products[i * in.clusters + (valid ? own : 0)];
  RowState state = {};
  if (row % rows == 0) {
    const float* const f = in.features + i * in.d;
    const double length = sqrt(warp_dot(f, f, in.d));
    state.inverse_norm = static_cast<float>(1 / (length > kShortestNorm ? length : kShortestNorm));
    state.own = z_own * state.inverse_norm;
  } else {
    state.inverse_norm = 1.0f / in.norms[s];
    if (in.gram && valid) {
      const float* const g = in.gram + own;
      const float step = g[in.nearest[s] * in.clusters] - g[own * in.clusters];
      state.own = (z_own + in.degree() * step) * state.inverse_norm;
    } else {
      state.own = static_cast<float>(warp_dot(in.supports + s * in.d, centroid, in.d));
    }
  }
  if (!valid) state.own = NAN;
  if (threadIdx.x % kWarpSize == 0) states[row] = state;
}

// cos_c - cos_o for the columns of a tile; `direct` holds the products of the supports with them, [count k, columns].
struct Cosines {
  const float *z, *m, *o;
  float degree, factor, own;

  __device__ Cosines(const Samples& in, const float* direct, int64_t tile, int64_t columns, int64_t i, int64_t r,
                     const RowState& state)
      : degree(in.degree()), factor(state.inverse_norm), own(state.own) {
    const int64_t s = i * in.k + r - 1;
    z = m = o = in.products + i * in.clusters + tile;
    if (r == 0) {
      degree = 0;
    } else if (direct) {
      z = m = o = direct + s * columns;
      degree = 0;
      factor = 1;
    } else {
      const int64_t label = in.labels[i] >= 0 && in.labels[i] < in.clusters ? in.labels[i] : 0;
      m = in.gram + in.nearest[s] * in.clusters + tile;
      o = in.gram + label * in.clusters + tile;
    }
  }
  __device__ float operator()(int64_t c) const { return (z[c] + degree * (m[c] - o[c])) * factor - own; }
};

// Adds columns to S and T of a row, but for the own one; put(c, e) sees each exponential. By a block. Unless exponents
// are bounded they are taken relative to the largest so far.
template <class Cosine, class Put>
__device__ void add_columns(RowState& state, int64_t columns, int64_t own, bool bounded, double tau, double* scratch,
                            Cosine cosine, Put put) {
  const float inverse_tau = static_cast<float>(1 / tau);
  if (!bounded) {
    double top = state.top;
    for (int64_t c = threadIdx.x; c < columns; c += kHeadThreads) {
      if (c != own) top = Max{}(top, static_cast<double>(cosine(c) * inverse_tau));
    }
    top = block_reduce(top, Max{}, static_cast<double>(state.top), scratch);
    const double shrink = exp(state.top - top);
    state.s *= shrink;
    state.t *= shrink;
    state.shrink = static_cast<float>(shrink);
    state.top = static_cast<float>(top);  // a float32 number: nothing is rounded here
  }
  constexpr int64_t kPiece = 64 * kHeadThreads;  // 64 float32 additions a thread, then float64
  double s = 0, t = 0;
  for (int64_t piece = 0; piece < columns; piece += kPiece) {
    const int64_t end = piece + kPiece < columns ? piece + kPiece : columns;
    float piece_s = 0, piece_t = 0;
    for (int64_t c = piece + threadIdx.x; c < end; c += kHeadThreads) {
      if (c == own) continue;
      const float relative = cosine(c), e = exp_bounded(relative * inverse_tau - state.top);
      piece_s += e;
      piece_t += e * relative;
      put(c, e);
    }
    s += piece_s;
    t += piece_t;
  }
  state.s += block_sum(s, scratch);
  state.t += block_sum(t, scratch);
}

// Adds a tile to S and T of each row; a block a row.
__global__ void softmax_sums(Samples in, const float* direct, int64_t tile, int64_t columns, const unsigned* longest,
                             double tau, RowState* states) {
  __shared__ double scratch[kHeadWarps];
  RowState state = states[blockIdx.x];
  const int64_t i = blockIdx.x / (1 + in.k), own = in.labels[i] - tile;
  const Cosines cosine(in, direct, tile, columns, i, blockIdx.x - i * (1 + in.k), state);
  const bool bounded = exponents_are_bounded(length_of_bits(*longest), tau);  // else exp might overflow
  add_columns(state, columns, own, bounded, tau, scratch, cosine, [](int64_t, float) {});
  if (threadIdx.x == 0) states[blockIdx.x] = state;
}

__device__ double denominator(const RowState& state) {
  return state.s + exp(-static_cast<double>(state.top));
}

// Sum over the rows of each sample, and the weights of the rows in `scale` x the gradient; a thread a sample.
__global__ void sample_losses(RowState* states, double* losses, int64_t count, int64_t k, double scale) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kHeadThreads + threadIdx.x;
  if (i >= count) return;
  double loss = 0;
  for (int64_t row = i * (1 + k); row < (i + 1) * (1 + k); ++row) {
    RowState& state = states[row];
    loss += state.top == 0 ? log1p(state.s) : log(denominator(state)) + state.top;
    if (!isfinite(state.own)) loss = NAN;  // nothing else looks at it where there is one centroid
    const double row_scale = scale * state.inverse_norm;
    double divisor = denominator(state);
    state.own_weight = static_cast<float>(-row_scale * (state.s / divisor));
    state.shift = state.top;
    if (divisor > 1e16) {  // its reciprocal would be subnormal in float32: into the exponent with it
      state.shift += static_cast<float>(log(divisor));
      divisor = 1;
    }
    state.weight = static_cast<float>(row_scale / divisor);
  }
  losses[i] = loss;
}

// W = scale x sum over the sample's rows of (P - Y) / n, into `weights` (the products, in place); a thread a number,
// which finds all that is of a row in its state.
__global__ void fill_weights(Samples in, const float* direct, int64_t tile, int64_t columns, double tau,
                             const RowState* states, float* weights) {
  const auto [i, c] = cell_of_thread(columns);
  if (c >= columns) return;
  const bool own = c == in.labels[i] - tile;
  in.degree = in.degree.read();
  const float inverse_tau = static_cast<float>(1 / tau);
  float sum = 0;
  for (int64_t r = 0; r <= in.k; ++r) {
    const RowState& state = states[i * (1 + in.k) + r];
    if (own) {
      sum += state.own_weight;
      continue;
    }
    const Cosines cosine(in, direct, tile, columns, i, r, state);
    sum += state.weight * exp_bounded(cosine(c) * inverse_tau - state.shift);
  }
  weights[i * in.clusters + tile + c] = sum;
}

// A unit row takes no gradient along itself; a thread a number of the gradient.
__global__ void project(Samples in, double scale, const RowState* states, float* gradient) {
  const auto [i, c] = cell_of_thread(in.d);
  if (c >= in.d) return;
  float sum = gradient[i * in.d + c];
  for (int64_t r = 0; r < 1 + in.k; ++r) {
    const RowState state = states[i * (1 + in.k) + r];
    const double along = -scale * (state.t / denominator(state)) * state.inverse_norm;
    const float weight = static_cast<float>(r == 0 ? along * state.inverse_norm : along);
    sum += weight * (r == 0 ? in.features[i * in.d + c] : in.supports[(i * in.k + r - 1) * in.d + c]);
  }
  gradient[i * in.d + c] = sum;
}

}  // namespace
}  // namespace ise_fast
