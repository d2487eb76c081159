// The largest distance from each row to any other.
#pragma once

#include <vector>

#include "pair_filter.h"

namespace ise_fast {

// The largest squared distance of each row, exact, from the certified filter over blocks of the product (see
// pair_filter.h). `block`: rows of a tile, 0 chooses.
std::vector<double> furthest_squared(const PairFilter& filter, int64_t d, int64_t block);

}  // namespace ise_fast
