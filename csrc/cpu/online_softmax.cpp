#include "online_softmax.h"

#include "../math/exp_bounded.h"
#include "clones.h"
#include "softmax.h"

namespace ise_fast {
namespace {

template <bool kScaled, class T>
[[gnu::always_inline]] inline T largest(const ColumnRun<T> run, T start, T& guard) {
  T top[kSoftmaxLanes], seen[kSoftmaxLanes] = {};
  std::fill(top, top + kSoftmaxLanes, start);
  const auto value = [&](int64_t c) {
    if constexpr (!kScaled) return run.z[c];
    const T scaled = run.z[c] * run.scale[c];
    return run.scale[c] > 0 ? scaled : -std::numeric_limits<T>::infinity();
  };
  int64_t c = 0;
  for (; c + kSoftmaxLanes <= run.count; c += kSoftmaxLanes) {
    for (int l = 0; l < kSoftmaxLanes; ++l) {
      const T v = value(c + l);
      seen[l] += run.z[c + l] * T{0};
      top[l] = v > top[l] ? v : top[l];
    }
  }
  for (int l = 0; c < run.count; ++c, ++l) {
    const T v = value(c);
    seen[l] += run.z[c] * T{0};
    top[l] = v > top[l] ? v : top[l];
  }
  for (const T s : seen) guard += s;
  return *std::max_element(top, top + kSoftmaxLanes);
}

template <bool kScaled, class T>
[[gnu::always_inline]] inline double exponentiate(const ColumnRun<T> run, T top, T inverse_tau) {
  const auto in_place = [&](int64_t c) {
    if constexpr (!kScaled) return run.z[c] = exp_bounded((run.z[c] - top) * inverse_tau);
    const T e = exp_bounded((run.z[c] * run.scale[c] - top) * inverse_tau);
    const T present = run.scale[c] > 0 ? e : T{0};
    run.z[c] = present * run.scale[c];
    return present;
  };
  double total = 0;
  for (int64_t piece = 0; piece < run.count; piece += kSoftmaxPiece) {
    const int64_t end = std::min(run.count, piece + kSoftmaxPiece);
    T sum[kSoftmaxLanes] = {};
    int64_t c = piece;
    for (; c + kSoftmaxLanes <= end; c += kSoftmaxLanes) {
      for (int l = 0; l < kSoftmaxLanes; ++l) sum[l] += in_place(c + l);
    }
    for (int l = 0; c < end; ++c, ++l) sum[l] += in_place(c);
    for (const T s : sum) total += s;
  }
  return total;
}

}  // namespace

ISE_CLONES float largest_product(const ColumnRun<float>& run, float top, float& guard) {
  return run.scale ? largest<true>(run, top, guard) : largest<false>(run, top, guard);
}
double largest_product(const ColumnRun<double>& run, double top, double& guard) {
  return run.scale ? largest<true>(run, top, guard) : largest<false>(run, top, guard);
}

ISE_CLONES double exponentials(const ColumnRun<float>& run, float top, float inverse_tau) {
  return run.scale ? exponentiate<true>(run, top, inverse_tau) : exponentiate<false>(run, top, inverse_tau);
}
double exponentials(const ColumnRun<double>& run, double top, double inverse_tau) {
  return run.scale ? exponentiate<true>(run, top, inverse_tau) : exponentiate<false>(run, top, inverse_tau);
}

}  // namespace ise_fast
