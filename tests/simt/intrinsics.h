// CUDA C++'s vocabulary for a host compiler. `where` is never passed: it is the line of the call, for error messages.
#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "runtime.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
#define __grid_constant__
#if defined(__SANITIZE_ADDRESS__)
#define __shared__ static
#else
#define __shared__ static thread_local  // see find_static_shared in scheduler.cpp
#endif

// Constants for the thread that reads them, although the scheduler sets them for each.
extern const uint3 threadIdx, blockIdx;
extern const dim3 blockDim, gridDim;
constexpr int warpSize = 32;

#define SIMT_HERE simt::Where where = simt::Where::current()

// Barriers.
inline void __syncthreads(SIMT_HERE) {
  simt::barrier(simt::Barrier::kPlain, "__syncthreads", 0, where);
}
inline int __syncthreads_count(int predicate, SIMT_HERE) {
  return simt::barrier(simt::Barrier::kCount, "__syncthreads_count", predicate, where);
}
inline int __syncthreads_and(int predicate, SIMT_HERE) {
  return simt::barrier(simt::Barrier::kAnd, "__syncthreads_and", predicate, where);
}
inline int __syncthreads_or(int predicate, SIMT_HERE) {
  return simt::barrier(simt::Barrier::kOr, "__syncthreads_or", predicate, where);
}
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __syncwarp(unsigned mask = 0xffffffffu, SIMT_HERE) {
  simt::collective(simt::Collective::kSync, "__syncwarp", mask, 0, 0, where);
}

// Which lanes happen to run together is nobody's promise: the only answer that no correct kernel can misuse.
inline unsigned __activemask() {
  return 1u << simt::lane();
}

// Warp collectives.
namespace simt {

template <class T>
std::uint64_t to_bits(T value) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8, "warp collectives move at most 8 bytes");
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  return bits;
}

template <class T>
T from_bits(std::uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

template <class T>
T shuffle(const char* name, unsigned mask, T value, int source, int width, const Where& where) {
  if (width < 1 || width > 32 || (width & (width - 1))) fail("the width of a shuffle must be a power of two", where);
  return from_bits<T>(collective(Collective::kShuffle, name, mask, to_bits(value), source, where));
}

}  // namespace simt

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, SIMT_HERE) {
  const int lane = simt::lane();
  return simt::shuffle("__shfl_sync", mask, value, (lane & -width) + (source & (width - 1)), width, where);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_HERE) {
  const int lane = simt::lane(), source = lane - static_cast<int>(delta);
  return simt::shuffle("__shfl_up_sync", mask, value, source < (lane & -width) ? lane : source, width, where);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_HERE) {
  const int lane = simt::lane(), source = lane + static_cast<int>(delta);
  return simt::shuffle("__shfl_down_sync", mask, value, source >= (lane & -width) + width ? lane : source, width,
                       where);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32, SIMT_HERE) {
  const int lane = simt::lane(), source = lane ^ lane_mask;
  return simt::shuffle("__shfl_xor_sync", mask, value, source >= (lane & -width) + width ? lane : source, width, where);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, SIMT_HERE) {
  return simt::collective(simt::Collective::kBallot, "__ballot_sync", mask, predicate != 0, 0, where);
}
inline int __any_sync(unsigned mask, int predicate, SIMT_HERE) {
  return simt::collective(simt::Collective::kBallot, "__any_sync", mask, predicate != 0, 0, where) != 0;
}
inline int __all_sync(unsigned mask, int predicate, SIMT_HERE) {
  return simt::collective(simt::Collective::kBallot, "__all_sync", mask, predicate == 0, 0, where) == 0;
}
template <class T>
unsigned __match_any_sync(unsigned mask, T value, SIMT_HERE) {
  return simt::collective(simt::Collective::kMatchAny, "__match_any_sync", mask, simt::to_bits(value), 0, where);
}
#define SIMT_REDUCE(name, type, kind)                                                             \
  inline type name(unsigned mask, type value, SIMT_HERE) {                                        \
    return simt::collective(simt::Collective::kind, #name, mask, simt::to_bits(value), 0, where); \
  }
SIMT_REDUCE(__reduce_add_sync, unsigned, kAddUnsigned)
SIMT_REDUCE(__reduce_add_sync, int, kAddUnsigned)
SIMT_REDUCE(__reduce_min_sync, unsigned, kMinUnsigned)
SIMT_REDUCE(__reduce_min_sync, int, kMinSigned)
SIMT_REDUCE(__reduce_max_sync, unsigned, kMaxUnsigned)
SIMT_REDUCE(__reduce_max_sync, int, kMaxSigned)
SIMT_REDUCE(__reduce_and_sync, unsigned, kAnd)
SIMT_REDUCE(__reduce_or_sync, unsigned, kOr)
SIMT_REDUCE(__reduce_xor_sync, unsigned, kXor)
#undef SIMT_REDUCE

// Atomics. The race detector must see one atomic access, not the load and the store that we make of it.
namespace simt {

template <class T, class Update>
__attribute__((no_sanitize("thread"))) T read_modify_write(T* address, Update update, const Where& where) {
  static_assert(
      std::is_integral_v<T> && (sizeof(T) == 4 || sizeof(T) == 8),
      "float atomics are refused: their result depends on the order of arrival; integers of 32 or 64 bits only");
  atomic_access(address, sizeof(T), true, where);
  const T old = *address;
  *address = update(old);
  return old;
}

template <class T>
using Same = std::type_identity_t<T>;  // lets atomicAdd(&counter, 1) convert its second argument
template <class T>
using Unsigned = std::make_unsigned_t<T>;

}  // namespace simt

#define SIMT_ATOMIC(name, expression)                                                                  \
  template <class T>                                                                                   \
  T name(T* address, simt::Same<T> value, SIMT_HERE) {                                                 \
    return simt::read_modify_write(address, [=](T old) { return static_cast<T>(expression); }, where); \
  }
SIMT_ATOMIC(atomicAdd, simt::to_bits(old) + simt::to_bits(value))
SIMT_ATOMIC(atomicSub, simt::to_bits(old) - simt::to_bits(value))
SIMT_ATOMIC(atomicMin, value < old ? value : old)
SIMT_ATOMIC(atomicMax, value > old ? value : old)
SIMT_ATOMIC(atomicExch, ((void)old, value))
SIMT_ATOMIC(atomicAnd, old& value)
SIMT_ATOMIC(atomicOr, old | value)
SIMT_ATOMIC(atomicXor, old ^ value)
#undef SIMT_ATOMIC
template <class T>
T atomicCAS(T* address, simt::Same<T> expected, simt::Same<T> value, SIMT_HERE) {
  return simt::read_modify_write(address, [=](T old) { return old == expected ? value : old; }, where);
}

// Arithmetic and bits.
using std::isfinite;
using std::max;
using std::min;
inline int __popc(unsigned x) {
  return std::popcount(x);
}
inline int __popcll(unsigned long long x) {
  return std::popcount(x);
}
inline int __ffs(int x) {
  return __builtin_ffs(x);
}
inline int __ffsll(long long x) {
  return __builtin_ffsll(x);
}
inline int __clz(int x) {
  return std::countl_zero(static_cast<unsigned>(x));
}
inline int __clzll(long long x) {
  return std::countl_zero(static_cast<unsigned long long>(x));
}
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(std::uint64_t{a} * b >> 32);
}
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}
inline unsigned __brev(unsigned x) {
  unsigned r = 0;
  for (int i = 0; i < 32; ++i) r |= (x >> i & 1u) << (31 - i);
  return r;
}
inline unsigned __float_as_uint(float x) {
  return std::bit_cast<unsigned>(x);
}
inline int __float_as_int(float x) {
  return std::bit_cast<int>(x);
}
inline float __uint_as_float(unsigned x) {
  return std::bit_cast<float>(x);
}
inline float __int_as_float(int x) {
  return std::bit_cast<float>(x);
}
inline long long __double_as_longlong(double x) {
  return std::bit_cast<long long>(x);
}
inline double __longlong_as_double(long long x) {
  return std::bit_cast<double>(x);
}
inline float __fadd_rn(float a, float b) {
  return a + b;
}
inline float __fsub_rn(float a, float b) {
  return a - b;
}
inline float __fmul_rn(float a, float b) {
  return a * b;
}
inline float __fdiv_rn(float a, float b) {
  return a / b;
}
inline float __fmaf_rn(float a, float b, float c) {
  return std::fmaf(a, b, c);
}
inline float __fsqrt_rn(float a) {
  return std::sqrt(a);
}
inline double __dadd_rn(double a, double b) {
  return a + b;
}
inline double __dsub_rn(double a, double b) {
  return a - b;
}
inline double __dmul_rn(double a, double b) {
  return a * b;
}
inline double __ddiv_rn(double a, double b) {
  return a / b;
}
inline double __fma_rn(double a, double b, double c) {
  return std::fma(a, b, c);
}
inline double __dsqrt_rn(double a) {
  return std::sqrt(a);
}
inline float __double2float_rn(double x) {
  return static_cast<float>(x);
}
template <class T>
T __ldg(const T* p) {
  return *p;
}
