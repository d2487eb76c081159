// The steps of the k-reciprocal encoding that re-ranking shares; the definitions are in csrc/cpu/k_reciprocal.h.
//
// Sets that surely fit into shared memory are built there, by a warp each (row_sets.cuh). Others, of any k1 and k2, are
// sorted out of all their entries (sorted_sets.cuh), which spreads the work evenly whatever the hubs.
#pragma once

#include "row_sets.cuh"
#include "sorted_sets.cuh"

namespace ise_fast {
namespace {

// `table` [rows, k1] in 32 bits; `from_bad`: see narrow_neighbours, 0 before.
inline Scratch<int32_t> narrow(const Tensor& table, unsigned long long* from_bad, cudaStream_t stream) {
  const int64_t rows = table.size(0), n = rows * table.size(1);
  const Scratch<int32_t> nn(n, table);
  LAUNCH(narrow_neighbours, blocks_for(n), kCsrThreads, 0, stream, table.const_data_ptr<int64_t>(), n, rows, nn.data(),
         from_bad);
  return nn;
}

inline void check_narrowed(const Tensor& table, unsigned long long from_bad, cudaStream_t stream) {
  if (from_bad == 0) return;
  const int64_t bad = table.numel() - static_cast<int64_t>(from_bad);
  check(false, "nn: expected 0 to ", table.size(0) - 1, ", got ",
        read_back(table.const_data_ptr<int64_t>() + bad, stream), " in row ", bad / table.size(1));
}

// Both. Waits for the stream.
inline Scratch<int32_t> narrowed(const Tensor& table, cudaStream_t stream) {
  const Scratch<unsigned long long> from_bad(1, table);
  from_bad.fill(0, stream);
  Scratch<int32_t> nn = narrow(table, from_bad.data(), stream);
  check_narrowed(table, read_back(from_bad.data(), stream), stream);
  return nn;
}

// R*(i) of the rows that `full` is of, values not yet set, and the most entries of a row; columns are less than
// `columns`, half sets have at most `width` members. `notes` are all 0 but for what the caller wrote; judge(notes) is
// called when they have been read, before anything as large as the result is made. Waits for the stream.
template <class Half, class Judge>
std::pair<CsrTensors, int64_t> joined_sets(const Lists& full, const Half& half, int64_t rows, int64_t columns,
                                           int64_t k1, int64_t width, const Scratch<RowNotes>& notes,
                                           const Judge& judge, const Tensor& like, cudaStream_t stream) {
  const int64_t most = std::min(k1 * (1 + width), columns);
  if (std::max(most, k1) > at_once(kMostInSet)) {
    judge(read_back(notes.data(), stream));
    return {sorted_sets(full, half, rows, columns, k1, like, stream), most};
  }
  const Scratch<uint8_t> joined(rows * k1, like);
  const uint32_t slots = set_slots(k1);
  const int64_t bytes = sizeof(uint32_t) * slots;
  const int warps = set_warps(bytes);
  LAUNCH(join_half_sets<Half>, blocks_for(rows, warps), warps * kWarpSize, bytes * warps, stream, full, half, rows, k1,
         slots, joined.data());
  return row_sets(StarRows<Half>{full, half, k1, joined.data()}, rows, most, 1, notes, judge, like, stream);
}

// R*(i) of all rows: full sets of all k1 columns of nn, half sets of the first `width`. As joined_sets.
template <class Judge>
std::pair<CsrTensors, int64_t> expanded_sets(const int32_t* nn, int64_t rows, int64_t k1, int64_t width,
                                             const Scratch<RowNotes>& notes, const Judge& judge, const Tensor& like,
                                             cudaStream_t stream) {
  const Scratch<int32_t> full_items(rows * k1, like), full_sizes(rows, like), half_items(rows * width, like),
      half_sizes(rows, like);
  const Lists full{full_items.data(), full_sizes.data(), k1}, half{half_items.data(), half_sizes.data(), width};
  const unsigned blocks = blocks_for(rows, kCsrWarps);
  LAUNCH(reciprocal_sets, blocks, kCsrThreads, 0, stream, nn, 0, rows, k1, k1, full);
  LAUNCH(reciprocal_sets, blocks, kCsrThreads, 0, stream, nn, 0, rows, k1, width, half);
  return joined_sets(full, half, rows, rows, k1, width, notes, judge, like, stream);
}
inline CsrTensors expanded_sets(const int32_t* nn, int64_t rows, int64_t k1, int64_t width, const Tensor& like,
                                cudaStream_t stream) {
  const Scratch<RowNotes> notes(1, like);
  notes.fill(0, stream);
  return expanded_sets(nn, rows, k1, width, notes, [](const RowNotes&) {}, like, stream).first;
}

// V'(i) = mean of V(nn[i][r]), r = 0 .. k2 - 1, added in that order; nn has k1 columns and `rows` rows, whose numbers
// are of rows of v. No row of v has more than `longest` entries. Waits for the stream.
inline CsrTensors query_expansion(const int32_t* nn, int64_t rows, int64_t k1, int64_t k2, const Csr& v,
                                  int column_bits, int64_t longest, const Tensor& like, cudaStream_t stream) {
  const int64_t most = std::min(k2 * longest, int64_t{1} << column_bits);
  if (most > at_once(kMostInSet)) return sorted_expansion(nn, rows, k1, k2, v, column_bits, like, stream);
  const Scratch<RowNotes> notes(1, like);
  notes.fill(0, stream);
  return row_sets(
             ExpandedRows{nn, k1, k2, v}, rows, most, static_cast<float>(k2), notes, [](const RowNotes&) {}, like,
             stream)
      .first;
}
// The same of sets that expanded_sets has made from nn.
inline CsrTensors query_expansion(const int32_t* nn, int64_t rows, int64_t k1, int64_t k2, const Csr& v,
                                  int column_bits, const Tensor& like, cudaStream_t stream) {
  return query_expansion(nn, rows, k1, k2, v, column_bits, k1 * (1 + half_width(k1)), like, stream);
}

}  // namespace
}  // namespace ise_fast
