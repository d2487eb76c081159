// Kernels with one planted fault each, and the same kernels without it: test_planted_ptx.py sees each reported with its
// line, and the corrected kernel pass. The first half costs time, the second is wrong. `HERE` marks the line.
#include <torch/csrc/stable/ops.h>

#include <map>
#include <string>

#include "../../csrc/cuda/launch.h"

namespace ise_fast {
namespace {

using torch::stable::Tensor;

constexpr int kThreads = 64;
constexpr unsigned kAll = 0xffffffffu;

__device__ int thread() {
  return blockIdx.x * kThreads + threadIdx.x;
}

// Each lane reads another sector.
__global__ void uncoalesced_load(float* data, int n, bool bug) {
  const int stride = bug ? 16 : 1;
  const float value = data[thread() * stride % n];  // HERE uncoalesced_load
  if (value > 2) data[0] = value;
}

// All lanes of a warp want other words of one bank.
__global__ void bank_conflict(float* data, int n, bool bug) {
  __shared__ float tile[kThreads * 32];
  for (int i = threadIdx.x; i < kThreads * 32; i += kThreads) tile[i] = static_cast<float>(i);
  __syncthreads();
  data[thread()] = tile[bug ? threadIdx.x * 32 : threadIdx.x];  // HERE bank_conflict
}

// Every lane has its own number of rounds.
__global__ void divergent_branch(float* data, int n, bool bug) {
  const int rounds = bug ? threadIdx.x % 32 : 31;
  float value = data[thread()];
  for (int i = 0; i < rounds; ++i) value = sqrtf(value + static_cast<float>(n));  // HERE divergent_branch
  data[thread()] = value;
}

// All lanes count in one word.
__global__ void hot_atomic(float* data, int n, bool bug) {
  auto* words = reinterpret_cast<unsigned*>(data);
  const int word = bug ? 0 : thread();
  atomicMax(words + word, static_cast<unsigned>(threadIdx.x));  // HERE hot_atomic
}

// Every row looks at all others; without the bug at the first 8.
__global__ void quadratic_loop(float* data, int n, bool bug) {
  float sum = 0;
  const int others = bug ? n : 8;
  for (int j = 0; j < others; ++j) sum += data[j];  // HERE quadratic_loop
  if (sum < 0) data[thread()] = sum;
}

// The gradient [B, d] of B rows: every number is a sum over all rows, B^2 d in all; without the bug over two labels.
__global__ void label_gradient(float* data, int n, bool bug) {
  constexpr int d = 16;
  const int terms = bug ? n / d : 2;
  float sum = 0;
  for (int g = 0; g < terms; ++g) sum += data[g * d + thread() % d];  // HERE label_gradient
  if (sum < 0) data[thread()] = sum;
}

// Sixteen words, each found by the one before; without the bug all are asked for at once.
__global__ void chased_pointer(float* data, int n, bool bug) {
  int at = 0;
  float sum = 0;
#pragma unroll
  for (int r = 0; r < 16; ++r) {
    at = bug ? static_cast<int>(data[at]) : r;
    sum += data[at];
  }
  if (sum < 0) data[thread()] = sum;
}

__global__ void missing_barrier(float* data, int n, bool bug) {
  __shared__ float tile[kThreads];
  tile[threadIdx.x] = data[thread()];
  if (!bug) __syncthreads();
  data[thread()] = tile[kThreads - 1 - threadIdx.x];  // HERE missing_barrier
}

__global__ void uninitialised_shared(float* data, int n, bool bug) {
  __shared__ float tile[kThreads];
  if (!bug || threadIdx.x != 5) tile[threadIdx.x] = data[thread()];
  __syncthreads();
  data[thread()] = tile[threadIdx.x ^ 1];  // HERE uninitialised_shared
}

__global__ void misaligned_vector(float* data, int n, bool bug) {
  const int at = threadIdx.x % 8 * 2 + (bug ? 1 : 0);
  const float2 pair = *reinterpret_cast<const float2*>(data + at);  // HERE misaligned_vector
  if (pair.x > 2) data[0] = pair.y;
}

__global__ void past_the_tensor(float* data, int n, bool bug) {
  data[n - 1 - thread() + (bug ? 1 : 0)] = 1;  // HERE past_the_tensor
}

__global__ void divergent_barrier(float* data, int n, bool bug) {
  if (!bug || threadIdx.x % 32 < 7) __syncthreads();  // HERE divergent_barrier
  data[thread()] = 1;
}

__global__ void shuffle_from_a_lane_that_left(float* data, int n, bool bug) {
  if (bug && threadIdx.x % 32 == 3) return;
  data[thread()] = __shfl_sync(kAll, 1.0f, 3);  // HERE shuffle_from_a_lane_that_left
}

__global__ void endless_loop(float* data, int n, bool bug) {
  volatile float* word = data;
  while (bug && word[0] < 2) {  // HERE endless_loop
  }
  data[thread()] = 1;
}

void run(Tensor& data, std::string name, bool bug) {
  const std::map<std::string, void (*)(float*, int, bool)> kernels = {
#define KERNEL(name) {#name, name}
      KERNEL(uncoalesced_load), KERNEL(bank_conflict),        KERNEL(divergent_branch),
      KERNEL(hot_atomic),       KERNEL(quadratic_loop),       KERNEL(label_gradient),
      KERNEL(missing_barrier),  KERNEL(uninitialised_shared), KERNEL(misaligned_vector),
      KERNEL(past_the_tensor),  KERNEL(divergent_barrier),    KERNEL(shuffle_from_a_lane_that_left),
      KERNEL(endless_loop),     KERNEL(chased_pointer),
  };
  const int n = static_cast<int>(data.numel());
  launch(name.c_str(), kernels.at(name), n / kThreads, kThreads, 0, current_stream(data),
         data.mutable_data_ptr<float>(), n, bug);
}

}  // namespace

STABLE_TORCH_LIBRARY(ise_fast_planted, m) {
  m.def("run(Tensor(a!) data, str name, bool bug) -> ()");
}
STABLE_TORCH_LIBRARY_IMPL(ise_fast_planted, CPU, m) {
  m.impl("run", TORCH_BOX(&run));
}

}  // namespace ise_fast
