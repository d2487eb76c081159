// Lloyd's k-means with every tie decided: the iterations are here, an iteration's work in lloyd.h. Means are float64
// sums in row order.
#include <algorithm>
#include <tuple>
#include <vector>

#include "../check_methods.h"
#include "lloyd.h"
#include "operator.h"

namespace ise_fast {
namespace {

template <class T>
Tensor tensor_of(const std::vector<T>& numbers, const Tensor& like, std::initializer_list<int64_t> shape,
                 ScalarType type) {
  Tensor out = new_tensor(like, shape, type);
  std::copy(numbers.begin(), numbers.end(), out.mutable_data_ptr<T>());
  return out;
}

using Step = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

Step kmeans_step(const Tensor& x, const Tensor& centres) {
  check_kmeans_step(x, centres);
  const auto run = [&]<class T>(T) -> Step {
    Lloyd<T> lloyd(x, centres, false);
    lloyd.assign_all();
    Tensor sums = new_tensor(x, {centres.size(0), x.size(1)}, ScalarType::Double);
    lloyd.sum_rows(lloyd.labels(), std::vector<uint8_t>(centres.size(0), 1), sums.mutable_data_ptr<double>());
    return {tensor_of(lloyd.labels(), x, {x.size(0)}, ScalarType::Long), sums,
            tensor_of(lloyd.counts(), x, {centres.size(0)}, ScalarType::Long),
            tensor_of(std::vector<double>{lloyd.inertia()}, x, {}, ScalarType::Double),
            tensor_of(lloyd.distances(), x, {x.size(0)}, ScalarType::Double)};
  };
  return x.scalar_type() == ScalarType::Double ? run(double{}) : run(float{});
}

using KMeansResult = std::tuple<Tensor, Tensor, Tensor, Tensor>;

KMeansResult kmeans(const Tensor& x, const Tensor& centres, int64_t iterations) {
  check_kmeans(x, centres, iterations);
  const auto run = [&]<class T>(T) -> KMeansResult {
    Lloyd<T> lloyd(x, centres, iterations > 1);
    std::vector<int64_t> before;
    int64_t done = 1;
    lloyd.assign_all();
    // Labels are compared when empty centres are filled: of equal rows, one that fills a centre leaves it every time.
    // Fillings may also take turns; they have come round when labels are those of some power of two (Brent, 1980).
    std::vector<int64_t> kept;
    for (std::vector<int64_t> label = lloyd.filled(); label != before && label != kept; label = lloyd.filled()) {
      if ((done & (done - 1)) == 0) kept = label;
      const std::vector<float> moved = lloyd.move_centres(label, before);
      before = std::move(label);
      lloyd.assign_moved(moved);
      if (++done > iterations) break;
    }
    done = std::min(done, iterations);
    return {tensor_of(lloyd.labels(), x, {x.size(0)}, ScalarType::Long),
            tensor_of(lloyd.centres(), x, {centres.size(0), x.size(1)}, x.scalar_type()),
            tensor_of(std::vector<double>{lloyd.inertia()}, x, {}, ScalarType::Double),
            tensor_of(std::vector<int64_t>{done}, x, {}, ScalarType::Long)};
  };
  return x.scalar_type() == ScalarType::Double ? run(double{}) : run(float{});
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ise_fast, CPU, m) {
  m.impl("kmeans_step", OPERATOR(kmeans_step));
  m.impl("kmeans", OPERATOR(kmeans));
}

}  // namespace ise_fast
