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
  int *order, *group;  // [rows] rows of one label side by side, labels in order: the row at a place, its label's number
  int* count;          // how many labels
};
constexpr int64_t kBatchLists = 6;  // of the above, with a number a row

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

// order and group; a warp a row, whose place is how many rows come before it by (label, row).
__global__ void order_rows(BatchLabels batch, int64_t rows) {
  const int64_t r = static_cast<int64_t>(blockIdx.x) * kHeadWarps + threadIdx.x / kWarpSize;
  if (r >= rows) return;
  const int lane = threadIdx.x % kWarpSize, mine = batch.leader[r];
  int before = 0;
  for (int64_t q = lane; q < rows; q += kWarpSize) {
    const int other = batch.leader[q];
    before += other < mine || (other == mine && q < r);
  }
  before = warp_sum(before);
  if (lane == 0) {
    batch.order[before] = static_cast<int>(r);
    batch.group[before] = batch.number[mine];
  }
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
//   df_i += sum over s of g_is s,    df_own += sum over i of g_is (f_i - (f_i . s) s) / n_s,
// terms in ascending order of labels and of features: what the part of the batch in `choices` has to do with a row.
// Parts come in ascending order and add to each other.
//
// The first sum: a row has one term a label, of all supports of the label. A block brings tiles of supports, in order
// of their labels, into shared memory for many rows at once; a lane finds out whether one support of the tile is the
// choice of a row, and adds up four columns.
constexpr int kTileRows = kWarpSize, kTileLanes = 4, kTileColumns = kTileLanes * kWarpSize;
constexpr int kTileThreads = kTileRows * kWarpSize;  // a warp brings one row of a tile
constexpr int kRows = 2;                             // that a warp adds up at most

// `each`: rows of a warp. What is beyond the end is the last one again, without a term and not written.
__global__ void __launch_bounds__(kTileThreads)
    feature_gradient(Choices choices, BatchLabels batch, const float* supports, float* gradient, int rows, int width,
                     int k, int each) {
  __shared__ float tiles[2][kTileRows][kTileColumns];
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize, all = rows * k;
  const int users = static_cast<int>(choices.users), across = (width + kTileColumns - 1) / kTileColumns,
            block = static_cast<int>(blockIdx.x);
  const int from = block % across * kTileColumns + lane, first = (block / across * kTileRows + warp) * each;
  const int64_t d = width;
  int column[kTileLanes], user[kRows];
  float sum[kRows][kTileLanes];
#pragma unroll
  for (int q = 0; q < kTileLanes; ++q) column[q] = Min{}(from + q * kWarpSize, width - 1);
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    user[r] = Min{}(first + r, users - 1);
#pragma unroll
    for (int q = 0; q < kTileLanes; ++q) {
      const bool started = choices.begin > 0 && r < each && first + r < users;
      sum[r][q] = started ? gradient[(choices.begin + user[r]) * d + column[q]] : 0.0f;
    }
  }

  // On its way while the present tile is added: a row of the next one, and what may be terms.
  float next[kTileLanes], weight[kRows];
  int support, label, chosen[kRows];
  const auto find = [&](int begin) {
    const int p = Min{}(begin + lane, all - 1), place = p / k;
    support = batch.order[place] * k + p % k;
    label = batch.group[place];
  };
  const auto fetch = [&] {
    const float* const numbers = supports + __shfl_sync(kWholeWarp, support, warp) * d;
#pragma unroll
    for (int q = 0; q < kTileLanes; ++q) next[q] = numbers[column[q]];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int at = label * users + user[r];
      chosen[r] = choices.support[at];
      weight[r] = choices.weight[at];
    }
  };
  find(0);
  fetch();
  for (int begin = 0; begin < all; begin += kTileRows) {
    auto& tile = tiles[begin / kTileRows % 2];  // one barrier a tile: the one before it may still be read
#pragma unroll
    for (int q = 0; q < kTileLanes; ++q) tile[warp][lane + q * kWarpSize] = next[q];
    unsigned votes[kRows];
    float factor[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      votes[r] = __ballot_sync(kWholeWarp, r < each && begin + lane < all && chosen[r] == support);
      factor[r] = weight[r];
    }
    __syncthreads();
    find(begin + kTileRows);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      for (; votes[r]; votes[r] &= votes[r] - 1) {
        const int t = __ffs(static_cast<int>(votes[r])) - 1;
        const float of_term = __shfl_sync(kWholeWarp, factor[r], t);
#pragma unroll
        for (int q = 0; q < kTileLanes; ++q) sum[r][q] += of_term * tile[t][lane + q * kWarpSize];
      }
      if (r == 0) fetch();  // what was to be found has come meanwhile
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int q = 0; q < kTileLanes; ++q) {
      if (r < each && first + r < users && from + q * kWarpSize < width) {
        gradient[(choices.begin + user[r]) * d + column[q]] = sum[r][q];
      }
    }
  }
}

// A block of few rows brings tiles for little, so it takes as many as leave a block for each multiprocessor.
inline void add_feature_gradient(const Choices& choices, const BatchLabels& batch, const float* supports,
                                 float* gradient, int64_t rows, int64_t d, int64_t k, cudaStream_t stream) {
  const auto blocks = [&](int each) {
    return blocks_for(choices.users, kTileRows * each) * blocks_for(d, kTileColumns);
  };
  const int each = blocks(kRows) < static_cast<unsigned>(multiprocessors()) ? 1 : kRows;
  LAUNCH(feature_gradient, blocks(each), kTileThreads, 0, stream, choices, batch, supports, gradient, rows, d, k, each);
}

// The second sum, of row i of the batch, a thread a number of its gradient.
//
// A label has one choice of each feature, and few of them are supports of row i: the block collects these first, so
// that the work grows with B x labels, not with B x B.
__global__ void preserving_gradient(Choices choices, BatchLabels batch, const float* features, const float* supports,
                                    const float* norms, float* gradient, int64_t rows, int64_t d, int64_t k) {
  __shared__ unsigned counts[kHeadWarps];
  __shared__ int chosen[kHeadThreads], user[kHeadThreads];
  __shared__ float factor[kHeadThreads], similar[kHeadThreads];
  const Cell cell = cell_of_thread(d);
  const int64_t i = cell.row, c = cell.column < d ? cell.column : 0;
  const bool started =
      cell.column < d && (choices.begin > 0 || i < choices.users);  // by parts before, or the first sum
  float sum = started ? gradient[i * d + c] : 0.0f;
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
    for (int t = 0; t < static_cast<int>(found); ++t) {
      const float towards = features[user[t] * d + c] - similar[t] * supports[chosen[t] * d + c];
      sum += factor[t] * towards;
    }
    __syncthreads();  // nobody may overwrite the list before every thread has read it
  }
  if (cell.column < d) gradient[i * d + c] = sum;
}

}  // namespace
}  // namespace ise_fast
