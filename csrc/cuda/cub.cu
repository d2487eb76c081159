#include "cub.h"

#if defined(__CUDACC__) && !defined(ISE_FAST_PTX)

#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>

#include "allocate.h"

namespace ise_fast {
namespace {

using torch::stable::Tensor;

// CUB's protocol: the first call says how much scratch the second one needs.
template <class Call>
void with_scratch(const Tensor& like, Call call) {
  size_t bytes = 0;
  check_cuda(call(nullptr, bytes), "CUB");
  const Tensor scratch = device_empty(like, {static_cast<int64_t>(bytes)}, torch::headeronly::ScalarType::Byte);
  check_cuda(call(scratch.mutable_data_ptr(), bytes), "CUB");
}

}  // namespace

void exclusive_sum(const int64_t* in, int64_t* out, int64_t n, const Tensor& like, cudaStream_t stream) {
  with_scratch(like, [&](void* scratch, size_t& bytes) {
    return cub::DeviceScan::ExclusiveSum(scratch, bytes, in, out, n, stream);
  });
}

void sort_keys(const uint64_t* in, uint64_t* out, int64_t n, const Tensor& like, cudaStream_t stream, int first_bit,
               int last_bit) {
  with_scratch(like, [&](void* scratch, size_t& bytes) {
    return cub::DeviceRadixSort::SortKeys(scratch, bytes, in, out, n, first_bit, last_bit, stream);
  });
}

void sort_pairs(const uint64_t* keys_in, uint64_t* keys_out, const uint32_t* values_in, uint32_t* values_out, int64_t n,
                const Tensor& like, cudaStream_t stream, int first_bit, int last_bit) {
  with_scratch(like, [&](void* scratch, size_t& bytes) {
    return cub::DeviceRadixSort::SortPairs(scratch, bytes, keys_in, keys_out, values_in, values_out, n, first_bit,
                                           last_bit, stream);
  });
}

}  // namespace ise_fast

#else  // tests/simt, tests/ptx: the same contract by the standard library

#include <algorithm>
#include <numeric>
#include <vector>

#ifdef ISE_FAST_PTX  // its profiler counts the calls
extern "C" void ptx_count_cub(const char* name, int64_t n, int bits);
#else
inline void ptx_count_cub(const char*, int64_t, int) {}
#endif

namespace ise_fast {
namespace {

using torch::stable::Tensor;

uint64_t bits(uint64_t key, int first_bit, int last_bit) {
  const int count = last_bit - first_bit;
  return key >> first_bit & (count == 64 ? ~uint64_t{0} : (uint64_t{1} << count) - 1);
}

std::vector<int64_t> sorted_order(const uint64_t* keys, int64_t n, int first_bit, int last_bit) {
  std::vector<int64_t> order(n);
  std::iota(order.begin(), order.end(), int64_t{0});
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return bits(keys[a], first_bit, last_bit) < bits(keys[b], first_bit, last_bit);
  });
  return order;
}

}  // namespace

void exclusive_sum(const int64_t* in, int64_t* out, int64_t n, const Tensor&, cudaStream_t) {
  ptx_count_cub("exclusive_sum", n, 64);
  std::exclusive_scan(in, in + n, out, int64_t{0});
}

void sort_keys(const uint64_t* in, uint64_t* out, int64_t n, const Tensor&, cudaStream_t, int first_bit, int last_bit) {
  ptx_count_cub("sort_keys", n, last_bit - first_bit);
  for (int64_t i : sorted_order(in, n, first_bit, last_bit)) *out++ = in[i];
}

void sort_pairs(const uint64_t* keys_in, uint64_t* keys_out, const uint32_t* values_in, uint32_t* values_out, int64_t n,
                const Tensor&, cudaStream_t, int first_bit, int last_bit) {
  ptx_count_cub("sort_pairs", n, last_bit - first_bit);
  for (int64_t i : sorted_order(keys_in, n, first_bit, last_bit)) {
    *keys_out++ = keys_in[i];
    *values_out++ = values_in[i];
  }
}

}  // namespace ise_fast

#endif
