// Kernels with one planted bug each, and the same kernels without it: test_planted.py sees every bug reported and every
// corrected kernel pass. Usage: planted NAME (bug|fixed) SEED
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <map>
#include <string>
#include <vector>

#include "simt.h"

namespace {

constexpr unsigned kAll = 0xffffffffu;
constexpr int kThreads = 64;

__global__ void missing_barrier(int* out, bool bug) {
  __shared__ int tile[kThreads];
  tile[threadIdx.x] = threadIdx.x;
  if (!bug) __syncthreads();
  out[threadIdx.x] = tile[kThreads - 1 - threadIdx.x];
}

// A tree whose last step forgets that the first half still reads.
__global__ void barrier_at_the_end_of_a_loop(int* out, bool bug) {
  __shared__ int best;
  for (int round = 0; round < 3; ++round) {
    if (threadIdx.x == 0) best = 0;
    __syncthreads();
    atomicMax(&best, static_cast<int>(threadIdx.x) + round);
    __syncthreads();
    out[threadIdx.x] = best;
    if (!bug) __syncthreads();
  }
}

// A shuffle moves values but orders no memory.
__global__ void missing_syncwarp(int* out, bool bug) {
  __shared__ int tile[kThreads];
  tile[threadIdx.x] = __shfl_xor_sync(kAll, static_cast<int>(threadIdx.x), 1);
  bug ? (void)__shfl_sync(kAll, 0, 0) : __syncwarp();
  out[threadIdx.x] = tile[threadIdx.x ^ 1];
}

// __syncwarp orders the threads of a warp, not those of two.
__global__ void syncwarp_across_warps(int* out, bool bug) {
  __shared__ int tile[kThreads];
  tile[threadIdx.x] = threadIdx.x;
  __syncwarp();
  out[threadIdx.x] = tile[threadIdx.x ^ (bug ? 32 : 31)];
}

__global__ void shared_race(int* out, bool bug) {
  __shared__ int count[2];
  if (bug || threadIdx.x == 0) count[0] = 1;
  __syncthreads();
  out[threadIdx.x] = count[0];
}

__global__ void half_words(int* out, bool bug) {  // neighbours in one word are no race, the same bytes are
  __shared__ unsigned short value[kThreads];
  value[bug ? threadIdx.x / 2 : threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = value[threadIdx.x / 2];
}

__global__ void plain_read_of_an_atomic(int* out, bool bug) {
  __shared__ int count;
  if (threadIdx.x == 0) count = 0;
  __syncthreads();
  atomicAdd(&count, 1);
  if (!bug) __syncthreads();
  out[threadIdx.x] = count;
}

__global__ void global_race(int* out, bool bug) {
  out[bug ? threadIdx.x : blockIdx.x * blockDim.x + threadIdx.x] = 1;
}

__global__ void uninitialised_shared(int* out, bool bug) {
  __shared__ int tile[kThreads];
  if (!bug || threadIdx.x != 5) tile[threadIdx.x] = threadIdx.x;
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x];
}

__global__ void divergent_barrier(int* out, bool bug) {
  if (!bug || threadIdx.x < 32) __syncthreads();
  out[threadIdx.x] = 0;
}

__global__ void early_return(int* out, bool bug) {
  if (bug && threadIdx.x == 7) return;
  __syncthreads();
  out[threadIdx.x] = 0;
}

__global__ void two_different_barriers(int* out, bool bug) {
  if (bug && threadIdx.x % 2)
    __syncthreads();
  else
    out[threadIdx.x] = __syncthreads_count(1);
}

__global__ void lane_that_never_comes(int* out, bool bug) {
  if (threadIdx.x % 32 < 16) out[threadIdx.x] = __ballot_sync(bug ? kAll : 0xffffu, 1);
  __syncthreads();
}

__global__ void mask_without_the_caller(int* out, bool bug) {
  out[threadIdx.x] = __any_sync(bug ? 0xfffffffeu : kAll, 1);
}

__global__ void shuffle_from_outside_the_mask(int* out, bool bug) {
  if (threadIdx.x % 32 < 16) out[threadIdx.x] = __shfl_sync(0xffffu, 1, bug ? 20 : 3);
}

__global__ void two_masks(int* out, bool bug) {
  const bool low = threadIdx.x % 32 < 16;
  out[threadIdx.x] = __ballot_sync(low ? 0xffffu : bug ? kAll : 0xffff0000u, 1);
  __syncthreads();
}

__global__ void past_dynamic_shared(int* out, bool bug) {
  int* tile = static_cast<int*>(simt::dynamic_shared());  // kThreads ints
  tile[threadIdx.x + (bug ? 1 : 0)] = 1;
  out[threadIdx.x] = 0;
}

__global__ void past_static_shared(int* out, bool bug) {
  __shared__ int tile[kThreads];
  int* volatile element = tile;  // hides the bound from the compiler
  element[threadIdx.x + (bug ? 1 : 0)] = 1;
  out[threadIdx.x] = 0;
}

__global__ void past_the_tensor(int* out, bool bug) {
  out[4 * kThreads - 1 - threadIdx.x + (bug ? 1 : 0)] = 1;
}

__global__ void index_of_an_array(int* out, bool bug) {
  int local[4] = {0, 1, 2, 3};
  out[threadIdx.x] = local[(threadIdx.x + out[0]) % (bug ? 5 : 4)];
}

__global__ void signed_overflow(int* out, bool bug) {
  out[threadIdx.x] = static_cast<int>(threadIdx.x) * (bug ? 0x7fffffff : 1);
}

__global__ void misaligned_atomic(int* out, bool bug) {
  atomicAdd(reinterpret_cast<int*>(reinterpret_cast<char*>(out) + (bug ? 2 : 0)), 1);
}

#ifdef FLOAT_ATOMIC  // must not compile
__global__ void float_atomic(float* out) {
  atomicAdd(out, 1.0f);
}
#endif

using Kernel = void (*)(int*, bool);

const std::map<std::string, Kernel> kernels = {
#define KERNEL(name) {#name, name}
    KERNEL(missing_barrier),
    KERNEL(barrier_at_the_end_of_a_loop),
    KERNEL(missing_syncwarp),
    KERNEL(syncwarp_across_warps),
    KERNEL(shared_race),
    KERNEL(half_words),
    KERNEL(plain_read_of_an_atomic),
    KERNEL(global_race),
    KERNEL(uninitialised_shared),
    KERNEL(divergent_barrier),
    KERNEL(early_return),
    KERNEL(two_different_barriers),
    KERNEL(lane_that_never_comes),
    KERNEL(mask_without_the_caller),
    KERNEL(shuffle_from_outside_the_mask),
    KERNEL(two_masks),
    KERNEL(past_dynamic_shared),
    KERNEL(past_static_shared),
    KERNEL(past_the_tensor),
    KERNEL(index_of_an_array),
    KERNEL(signed_overflow),
    KERNEL(misaligned_atomic),
};

void run(const std::string& name, bool bug) {
  std::vector<int> out(4 * kThreads, 0);
  if (name == "launch_limits") {
    if (bug) simt::launch("too_many_threads", missing_barrier, 1, 1025, 0, out.data(), false);
  } else if (name == "grid_limits") {
    if (bug) simt::launch("too_many_blocks", missing_barrier, dim3(1, 65536), kThreads, 0, out.data(), false);
  } else if (name == "empty_grid") {
    if (bug) simt::launch("no_block", missing_barrier, 0, kThreads, 0, out.data(), false);
  } else if (name == "shared_limits") {
    simt::launch("too_much_shared", shared_race, 1, kThreads, (48 << 10) + (bug ? 1 : 0), out.data(), false);
  } else {
    // One block where threads of two blocks would write the same words for want of a block index.
    const unsigned blocks = name == "global_race" ? 2 : 1;
    simt::launch(name.c_str(), kernels.at(name), blocks, kThreads, kThreads * sizeof(int), out.data(), bug);
  }
}

}  // namespace

int main(int, char** arguments) {
  simt::set_schedule(std::strtoull(arguments[3], nullptr, 10));
  try {
    run(arguments[1], std::string(arguments[2]) == "bug");
  } catch (const std::exception& error) {
    std::puts(error.what());
    return 1;
  }
  std::puts("passed");
}
