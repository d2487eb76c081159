// The best candidates of all rows of one set from half of the products: rows are cut into blocks, a tile is the product
// of two of them, and each of its numbers is offered to the row and to the column that it belongs to.
//
// Every row has a list of keys in device memory and a limit that a score must be below to enter. The first limits come
// from the tiles on the diagonal, by a survey; then, when rows have seen twice as many columns as before, each list is
// cut to its best and their last score is the new limit: in rows of random order as many again arrive until the next
// cut, whatever their number. Who enters does not depend on the order of arrival, so the lists hold the same sets in
// every run. A list that was too short is told by its candidates, which leave a doubt.
#pragma once

#include "scores.cuh"
#include "topk.cuh"

namespace ise_fast {
namespace {

constexpr int kSurveyMinima = 16;  // of each lane
constexpr int kMostKept = 448;     // candidates of a row: of the minima of a survey, 32 x 16, so many are to be finite
constexpr int kRowsAhead = 8;      // of a tile, whose products a warp reads together
constexpr int64_t kLeastRoom = 512;  // of a list; and so many times its candidates
constexpr int64_t kRoom = 4;
// Rows of a block: tiles that fill a GPU, and in the second cache wait to be read; fewer rows leave more on the
// diagonal, which is computed in full.
constexpr int64_t kLeastBlock = 2816, kMostBlock = 4096, kBlocks = 8;

// The candidates of each row.
struct CandidateLists {
  uint64_t* keys;   // [n, room]
  unsigned* count;  // [n], how many came: above `room` some are lost
  float* limit;     // [n], none for those who lost some
  int room;
};

// Consecutive rows.
struct Span {
  int64_t first, count;
};

// A number that at least k of a set are below, and no more where no two of them are equal, or `high` if fewer are below
// that; by a warp. below(t): how many are below t, none for `low`.
template <class T, class Below>
__device__ T above_smallest(T low, T high, int k, const Below& below) {
  while (high - low > 1) {
    const T middle = low + (high - low) / 2;
    const int count = below(middle);
    if (count < k) {
      low = middle;
    } else {
      high = middle;
    }
    if (count == k) break;
  }
  return high;
}

// First limits of the rows of a tile on the diagonal: at least `kept` of its columns have scores below. A warp a row.
__global__ void survey_rows(const float* product, int pitch, FilterRows<float> rows, float* limit, Span span,
                            int kept) {
  const int lane = threadIdx.x % kWarpSize, count = static_cast<int>(span.count);
  const int r = static_cast<int>(blockIdx.x) * kFilterWarps + threadIdx.x / kWarpSize;
  if (r >= count) return;
  const float* row = product + static_cast<int64_t>(r) * pitch;
  const ScoreTerms* terms = rows.terms + span.first;
  const float factor = terms[r].factor;
  float least[kSurveyMinima];
#pragma unroll
  for (int m = 0; m < kSurveyMinima; ++m) least[m] = INFINITY;
  for (int start = 0; start < count; start += kSurveyMinima * kWarpSize) {
#pragma unroll
    for (int m = 0; m < kSurveyMinima; ++m) {
      const int c = start + m * kWarpSize + lane, there = Min{}(c, count - 1);
      const float score = terms[there].of(row[there], factor);
      least[m] = c < count ? Min{}(least[m], score) : least[m];
    }
  }
  float nearest = least[0];
#pragma unroll
  for (int m = 1; m < kSurveyMinima; ++m) nearest = Min{}(nearest, least[m]);
  const uint32_t none = ordered_bits(warp_reduce(nearest, Min{}));
  const uint32_t above = above_smallest(none, ordered_bits(INFINITY), kept, [&](uint32_t t) {
    const float bound = from_ordered_bits(t);
    int found = 0;
#pragma unroll
    for (int m = 0; m < kSurveyMinima; ++m) found += __popc(__ballot_sync(kWholeWarp, least[m] < bound));
    return found;
  });
  if (lane == 0) limit[span.first + r] = from_ordered_bits(above);
}

// Keys into the list of a row: key_of(b) for each bit b of the mask.
template <class KeyOf>
__device__ void append(const CandidateLists& lists, int64_t row, unsigned mask, const KeyOf& key_of) {
  if (mask == 0) return;
  unsigned at = atomicAdd(lists.count + row, static_cast<unsigned>(__popc(mask)));
  uint64_t* keys = lists.keys + row * lists.room;
  for (; mask != 0 && at < static_cast<unsigned>(lists.room); mask &= mask - 1, ++at) {
    keys[at] = key_of(__ffs(static_cast<int>(mask)) - 1);
  }
}

// What a pair needs to know of each of its rows.
struct alignas(16) Offered {
  ScoreTerms terms;
  float limit;
};

// The `i`-th of a span's rows or, beyond them, one that takes none and that none takes.
__device__ inline Offered offered(const FilterRows<float>& rows, const CandidateLists& lists, const Span& span,
                                  int64_t i) {
  if (i >= span.count) return {{INFINITY, 0.0f}, -INFINITY};
  return {rows.terms[span.first + i], lists.limit[span.first + i]};
}

// Offers each product of a tile to its row and, unless the tile is on the diagonal, to its column. A block takes 32
// rows, each of its warps 32 of their columns, a lane a column. Who takes whom is noted as bits; what is taken, which
// is little, is read once more.
__global__ void offer_pairs(const float* product, int pitch, FilterRows<float> rows, CandidateLists lists, Span down,
                            Span across) {
  __shared__ Offered of_row[kWarpSize];
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  const int wide = static_cast<int>((across.count + kFilterThreads - 1) / kFilterThreads);
  const int first_row = static_cast<int>(blockIdx.x) / wide * kWarpSize;
  const int first_column = (static_cast<int>(blockIdx.x) % wide * kFilterWarps + warp) * kWarpSize;
  const int last_row = Min{}(static_cast<int>(down.count) - first_row, kWarpSize) - 1;
  const int last_column = Min{}(static_cast<int>(across.count) - first_column, kWarpSize) - 1;
  if (warp == 0) of_row[lane] = offered(rows, lists, down, first_row + lane);
  __syncthreads();
  if (last_column < 0) return;

  Offered own = offered(rows, lists, across, first_column + lane);
  if (down.first == across.first) own.limit = -INFINITY;
  const float* tile = product + static_cast<int64_t>(first_row) * pitch + first_column;
  const float* column = tile + Min{}(lane, last_column);
  unsigned of_lane = 0, of_column = 0;  // columns that row `lane` takes; rows that the column takes
  const auto visit = [&](int start, const auto& row_of) {
    float value[kRowsAhead];
#pragma unroll
    for (int t = 0; t < kRowsAhead; ++t) value[t] = column[row_of(start + t) * pitch];
#pragma unroll
    for (int t = 0; t < kRowsAhead; ++t) {
      const Offered row = of_row[start + t];
      const unsigned votes = __ballot_sync(kWholeWarp, own.terms.of(value[t], row.terms.factor) < row.limit);
      if (lane == start + t) of_lane = votes;
      if (row.terms.of(value[t], own.terms.factor) < own.limit) of_column |= 1u << (start + t);
    }
  };
  if (last_row == kWarpSize - 1) {
    for (int start = 0; start < kWarpSize; start += kRowsAhead) visit(start, [](int r) { return r; });
  } else {
    for (int start = 0; start <= last_row; start += kRowsAhead) {
      visit(start, [&](int r) { return Min{}(r, last_row); });
    }
  }

  const int64_t i = down.first + first_row, j = across.first + first_column;
  append(lists, i + lane, of_lane, [&](int c) {
    const float score = rows.terms[j + c].of(tile[lane * pitch + c], of_row[lane].terms.factor);
    return ascending_key(score, static_cast<uint32_t>(j + c));
  });
  append(lists, j + lane, of_column, [&](int r) {
    const float score = of_row[r].terms.of(tile[r * pitch + lane], own.terms.factor);
    return ascending_key(score, static_cast<uint32_t>(i + r));
  });
}

// Cuts each list to its `kept` best, the last time ascending, with the highest score that stays as limit; a warp, alone
// in its block, a list.
__global__ void cut_lists(CandidateLists lists, int kept, bool last) {
  DYNAMIC_SHARED(uint64_t, key);  // [room and 31 more, then a power of two, at least `kept`]
  const int lane = threadIdx.x;
  const int64_t i = blockIdx.x;
  uint64_t* const list = lists.keys + i * lists.room;
  const unsigned came = lists.count[i];
  if (came > static_cast<unsigned>(lists.room)) {  // any row may be among the lost: candidates that nothing is above
    for (int c = lane; c < kept; c += kWarpSize) list[c] = ascending_key(-INFINITY, static_cast<uint32_t>(c));
    if (lane == 0) lists.limit[i] = -INFINITY;
    return;
  }
  const int count = static_cast<int>(came), stay = Min{}(count, kept);
  const int whole = (count + kWarpSize - 1) / kWarpSize * kWarpSize;  // all lanes go through the same loops
  uint64_t least = kWorstKey;
  for (int c = lane; c < whole; c += kWarpSize) {
    key[c] = c < count ? list[c] : kWorstKey;
    least = Min{}(least, key[c]);
  }
  uint64_t above = kWorstKey;
  if (count > kept) {
    above = above_smallest(warp_reduce(least, Min{}), kWorstKey, kept, [&](uint64_t t) {
      int found = 0;
      for (int c = lane; c < whole; c += kWarpSize) found += __popc(__ballot_sync(kWholeWarp, key[c] < t));
      return found;
    });
  }
  uint64_t* const best = key + (lists.room + kWarpSize - 1);
  uint64_t worst = 0;
  int placed = 0;
  for (int c = lane; c < whole; c += kWarpSize) {
    const bool stays = key[c] < above;
    const unsigned votes = __ballot_sync(kWholeWarp, stays);
    if (stays) {
      best[placed + __popc(votes & ((1u << lane) - 1))] = key[c];
      worst = Max{}(worst, key[c]);
    }
    placed += __popc(votes);
  }
  if (last) {
    int sorted = 2;
    while (sorted < stay) sorted *= 2;
    for (int c = stay + lane; c < sorted; c += kWarpSize) best[c] = kWorstKey;
    __syncthreads();
    block_sort(best, sorted);
  }
  __syncwarp();
  for (int c = lane; c < stay; c += kWarpSize) list[c] = best[c];
  worst = warp_reduce(worst, Max{});
  if (lane > 0) return;
  lists.count[i] = stay;
  if (stay == kept) lists.limit[i] = ascending_value(worst);
}

// The candidates of one set, and who owns them.
struct Candidates {
  Tensor keys, count, limit;

  CandidateLists lists() {
    return {reinterpret_cast<uint64_t*>(keys.mutable_data_ptr<int64_t>()),
            reinterpret_cast<unsigned*>(count.mutable_data_ptr<int32_t>()), limit.mutable_data_ptr<float>(),
            static_cast<int>(keys.size(1))};
  }
};

// Rows of a block: `block`, if it is not 0.
inline int64_t block_rows(int64_t n, int64_t block) {
  return block > 0 ? block : std::clamp((n / kBlocks + 255) / 256 * 256, kLeastBlock, kMostBlock);
}

// Whether half of the products will do: several blocks, and lists that take no more than an eighth of the device.
inline bool worth_lists(int64_t n, int64_t block, int64_t kept) {
  return n > block_rows(n, block) && kept <= kMostKept && 2 * kept * n <= device_bytes() / 64;
}

// The `kept` best candidates of each row of one set, ascending.
inline Candidates list_candidates(const Scores<float>& scores, int64_t block, int kept, cudaStream_t stream) {
  const Tensor& like = scores.base_rows;
  const FilterRows<float>& rows = scores.base;
  const int64_t n = rows.n, wanted = std::min(n, std::max(kLeastRoom, kRoom * kept)),
                least = std::min<int64_t>(n, 2 * kept);
  const int64_t room = std::clamp(at_once(std::min(wanted * n, device_bytes() / 64)) / n, least, wanted);
  Candidates out{
      halve_on_failure(room, least, [&](int64_t size) { return device_empty(like, {n, size}, ScalarType::Long); }),
      device_zeros(like, {n}, ScalarType::Int), device_empty(like, {n}, ScalarType::Float)};
  const int64_t most = block_rows(n, block);
  const auto [height, buffer] = halve_on_failure(most, std::min(most, kFewestTileRows), [&](int64_t size) {
    return Tile{size, device_empty(like, {size, whole_sectors(size)}, ScalarType::Float)};
  });
  const CandidateLists lists = out.lists();
  const int pitch = static_cast<int>(buffer.size(1));
  const auto* product = buffer.const_data_ptr<float>();
  const auto span = [&](int64_t b) { return Span{b * height, std::min(height, n - b * height)}; };
  const auto multiply = [&](const Span& down, const Span& across) {
    Tensor all = buffer, factors = scores.base_rows;
    const int64_t columns = std::min(whole_sectors(across.count), factors.size(0) - across.first);
    Tensor tile = torch::stable::narrow(all, 0, 0, down.count);
    Tensor result = torch::stable::narrow(tile, 1, 0, columns);
    matmul(result, torch::stable::narrow(factors, 0, down.first, down.count),
           torch::stable::transpose(torch::stable::narrow(factors, 0, across.first, columns), 0, 1));
  };
  const auto offer = [&](const Span& down, const Span& across) {
    const unsigned grid = blocks_for(down.count, kWarpSize) * blocks_for(across.count, kFilterThreads);
    LAUNCH(offer_pairs, grid, kFilterThreads, 0, stream, product, pitch, rows, lists, down, across);
  };
  const auto cut = [&](bool last) {
    size_t sorted = 2;
    while (sorted < static_cast<size_t>(kept)) sorted *= 2;
    LAUNCH(cut_lists, static_cast<unsigned>(n), kWarpSize, (lists.room + kWarpSize - 1 + sorted) * sizeof(uint64_t),
           stream, lists, kept, last);
  };
  const int64_t blocks = blocks_for(n, height);
  for (int64_t b = 0; b < blocks; ++b) {
    multiply(span(b), span(b));
    LAUNCH(survey_rows, warps_grid(span(b).count), kFilterThreads, 0, stream, product, pitch, rows, lists.limit,
           span(b), kept);
    offer(span(b), span(b));
  }
  cut(false);
  // In each round every block meets the two that are as far away, once: all lists grow alike.
  int64_t seen = 1, at_cut = 1;
  for (int64_t apart = 1; apart <= blocks / 2; ++apart, seen += 2) {
    if (seen >= 2 * at_cut) {
      cut(false);
      at_cut = seen;
    }
    for (int64_t b = 0; b < (2 * apart == blocks ? apart : blocks); ++b) {
      const int64_t other = (b + apart) % blocks;
      multiply(span(std::min(b, other)), span(std::max(b, other)));
      offer(span(std::min(b, other)), span(std::max(b, other)));
    }
  }
  cut(true);
  return out;
}

}  // namespace
}  // namespace ise_fast
