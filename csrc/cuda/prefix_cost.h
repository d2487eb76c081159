// Whether a search for near rows is cheaper by prefixes along principal axes: by predicted cost, from pilots. The
// answer does not depend on it.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

namespace ise_fast {

// Costs in multiply-adds of a float16 product by the library, from the rates of an H100 (benchmarks/profile/model.py):
// 325e12 of them a second, 3.0e12 bytes from memory, 5.5e12 from the L2 cache. Predicted, not measured.
constexpr double kWritten = 433;       // a product of the result: 4 bytes to memory
constexpr double kSelected = 709;      // a score among the k smallest: 12 bytes from the cache
constexpr double kSearchedBoth = 433;  // the same, for the row and the column that it belongs to: 4 bytes from memory
constexpr double kMarked = 370;        // a score below a limit: 6 bytes from the cache, and a bit
constexpr double kExactTerm = 433;     // a term of a float64 distance: 4 bytes from memory
constexpr double kSingle = 13;         // a multiply-add of a float32 product, which rotates

constexpr int64_t kPilotQueries = 256;
constexpr double kLeastPairs = 0x1p37;  // 370,000 rows, 520,000 where half is computed: fewer without structure would
                                        // pay more than 3 % for a pilot
constexpr double kWorthwhile = 0.9;     // of the cost without prefixes
constexpr double kHopeless = 0.9;       // failed queries: more columns will not help either
constexpr int64_t kNoPrefix = -1;

struct SearchSize {
  int64_t queries, base, d;
  bool self;
  double searched;  // what a score costs: kSelected, kSearchedBoth or kMarked
  double part;      // of the pairs: a half where the products of (i, j) and (j, i) are one
  double exact;     // of the exact distances: a half where those are one, too
};

// What a pilot saw, of a query.
struct Pilot {
  double compared;  // exact distances
  double failed;    // 1 if it needs another search
};

// Columns of prefixes to try, the rest's included, few first. Fewer than a quarter cost as much: the product takes no
// longer than its writing.
inline std::array<int64_t, 2> prefix_columns(int64_t d) {
  const auto whole = [](int64_t columns) { return std::max<int64_t>(columns / 8 * 8, 2); };
  return {whole(d / 4), whole(d * 3 / 8)};
}

// Of one query: its products are made and written, their scores searched, some rows compared exactly.
inline double search_cost(const SearchSize& size, int64_t columns, double compared) {
  const double product = std::max(static_cast<double>(columns), kWritten);
  return size.part * static_cast<double>(size.base) * (product + size.searched) +
         size.exact * compared * static_cast<double>(size.d) * kExactTerm;
}

// Of one that failed: it is searched again alone, among all rows.
inline double second_search_cost(const SearchSize& size) {
  return static_cast<double>(size.base) * (std::max(static_cast<double>(size.d), kWritten) + kSelected);
}

// The search by all columns, after what a pilot saw of it: who fails searches again.
inline double predicted_cost(const SearchSize& size, const Pilot& pilot) {
  return search_cost(size, size.d, pilot.compared) + pilot.failed * second_search_cost(size);
}

// The search by prefixes of so many columns: rows are rotated besides.
inline double predicted_cost(const SearchSize& size, int64_t columns, const Pilot& pilot) {
  const double rows = size.self ? 1 : 1 + static_cast<double>(size.base) / static_cast<double>(size.queries);
  return search_cost(size, columns, pilot.compared) + pilot.failed * second_search_cost(size) +
         rows * static_cast<double>(size.d * columns) * kSingle;
}

// Whether pilots and the axes, which cost as much for few rows as for many, could be worth it.
inline bool worth_a_pilot(const SearchSize& size) {
  const double pairs = size.part * static_cast<double>(size.queries) * static_cast<double>(size.base);
  const Pilot best{0, 0};
  return pairs >= kLeastPairs &&
         predicted_cost(size, prefix_columns(size.d)[0], best) < kWorthwhile * predicted_cost(size, best);
}

}  // namespace ise_fast
