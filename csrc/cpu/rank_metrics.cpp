// CMC, mAP and mINP of a distance matrix, the gallery ranked by (distance, index).
//
// Nothing is sorted but a query's few matches: one pass over the gallery counts, for each of them, the entries ranked
// before it. That is G log(matches) a query instead of G log(G).
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "../check_rank.h"
#include "changed.h"
#include "operator.h"
#include "parallel.h"
#include "tensors.h"

namespace ise_fast {
namespace {

struct Identities {
  const int64_t* query_id;
  const int64_t* gallery_id;
  const int64_t* query_cam;  // null: no cameras, nothing is left out
  const int64_t* gallery_cam;
};

struct QueryScore {
  double ap = std::numeric_limits<double>::quiet_NaN();  // NaN: no match
  double inp = 0;
  int64_t first = 0;  // rank of the first match
  bool finite = true;
};

// Working memory of one thread, and the score of one query at a time.
template <class T>
class Scorer {
public:
  Scorer(const Identities& people, int64_t gallery) : people_(people), gallery_(gallery) {}

  QueryScore operator()(int64_t q, const T* distance) {
    QueryScore score;
    for (int64_t j = 0; j < gallery_; ++j) score.finite &= std::abs(distance[j]) <= std::numeric_limits<T>::max();
    if (!score.finite) return score;  // NaN has no order to sort by
    collect_matches(q, distance);
    if (matches_.empty()) return score;
    count_others(q, distance);

    const auto [first_distance, first_index] = matches_.front();
    const auto [last_distance, last_index] = matches_.back();
    int64_t before_first = 0, before_last = 0;
    for (int64_t j = 0; j < gallery_; ++j) {
      const bool other = people_.gallery_id[j] != people_.query_id[q];
      before_first += other & ((distance[j] < first_distance) | ((distance[j] == first_distance) & (j < first_index)));
      before_last += other & ((distance[j] < last_distance) | ((distance[j] == last_distance) & (j < last_index)));
    }
    const auto total = static_cast<double>(matches_.size());
    score.first = before_first + 1;
    score.inp = total / (static_cast<double>(before_last) + total);

    // One step for each distinct distance that has a match: recall gained there times precision there.
    double steps = 0.0;
    int64_t found = 0, others = 0;
    for (size_t v = 0; v < values_.size(); ++v) {
      found += matches_at_[v];
      others += others_up_to_[v];
      steps += static_cast<double>(matches_at_[v] * found) / static_cast<double>(found + others);
    }
    score.ap = steps / total;
    return score;
  }

private:
  // The matches by (distance, index), their distinct distances and how many have each.
  void collect_matches(int64_t q, const T* distance) {
    matches_.clear();
    for (int64_t j = 0; j < gallery_; ++j) {
      if (people_.gallery_id[j] != people_.query_id[q]) continue;
      if (people_.query_cam != nullptr && people_.gallery_cam[j] == people_.query_cam[q]) continue;
      const T value = load_once(distance + j);
      if (std::isnan(value)) throw_changed("distance");  // it has no order
      matches_.emplace_back(value, j);
    }
    std::sort(matches_.begin(), matches_.end());
    values_.clear();
    matches_at_.clear();
    for (const auto& [value, index] : matches_) {
      if (values_.empty() || values_.back() != value) {
        values_.push_back(value);
        matches_at_.push_back(0);
      }
      ++matches_at_.back();
    }
  }

  // others_up_to_[v]: entries of other identities beyond the (v - 1)-th distinct match distance and up to the v-th.
  void count_others(int64_t q, const T* distance) {
    others_up_to_.assign(values_.size(), 0);
    for (int64_t j = 0; j < gallery_; ++j) {
      if (people_.gallery_id[j] == people_.query_id[q]) continue;
      const auto at = std::lower_bound(values_.begin(), values_.end(), distance[j]) - values_.begin();
      if (at < static_cast<int64_t>(values_.size())) ++others_up_to_[at];
    }
  }

  const Identities people_;
  const int64_t gallery_;
  std::vector<std::pair<T, int64_t>> matches_;
  std::vector<T> values_;
  std::vector<int64_t> matches_at_, others_up_to_;
};

template <class T>
std::vector<QueryScore> score_queries(const Tensor& distance, const Identities& people) {
  const int64_t queries = distance.size(0), gallery = distance.size(1);
  const auto* rows = distance.const_data_ptr<T>();
  std::vector<QueryScore> scores(queries);
  parallel_blocks(queries, [&](Blocks& next) {
    Scorer<T> scorer(people, gallery);
    for (int64_t q = next(); q < queries; q = next()) scores[q] = scorer(q, rows + q * gallery);
  });
  return scores;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> rank_metrics(const Tensor& distance, const Tensor& query_ids,
                                                        const Tensor& gallery_ids,
                                                        const std::optional<Tensor>& query_cams,
                                                        const std::optional<Tensor>& gallery_cams, int64_t max_rank) {
  const bool cameras = query_cams.has_value();
  check_rank_metrics(distance, query_ids, gallery_ids, query_cams ? &*query_cams : nullptr,
                     gallery_cams ? &*gallery_cams : nullptr, max_rank);
  const Tensor d = row_major(distance), qi = row_major(query_ids), gi = row_major(gallery_ids),
               qc = cameras ? row_major(*query_cams) : qi, gc = cameras ? row_major(*gallery_cams) : gi;
  const Identities people{qi.const_data_ptr<int64_t>(), gi.const_data_ptr<int64_t>(),
                          cameras ? qc.const_data_ptr<int64_t>() : nullptr,
                          cameras ? gc.const_data_ptr<int64_t>() : nullptr};
  const std::vector<QueryScore> scores =
      d.scalar_type() == ScalarType::Double ? score_queries<double>(d, people) : score_queries<float>(d, people);

  const auto queries = static_cast<int64_t>(scores.size());
  Tensor mean_ap = new_tensor(d, {}, ScalarType::Double);
  Tensor cmc = new_tensor(d, {max_rank}, ScalarType::Float);
  Tensor mean_inp = new_tensor(d, {}, ScalarType::Double);
  Tensor ap = new_tensor(d, {queries}, ScalarType::Float);
  std::vector<int64_t> first_at(max_rank);
  double ap_sum = 0.0, inp_sum = 0.0;
  int64_t valid = 0;
  for (int64_t q = 0; q < queries; ++q) {
    check(scores[q].finite, "distance: expected finite values, got NaN or infinity in row ", q);
    ap.mutable_data_ptr<float>()[q] = static_cast<float>(scores[q].ap);
    if (std::isnan(scores[q].ap)) continue;
    ++valid;
    ap_sum += scores[q].ap;
    inp_sum += scores[q].inp;
    if (scores[q].first <= max_rank) ++first_at[scores[q].first - 1];
  }
  check(valid > 0, "query_ids: expected at least one query with a match in the gallery, got none");
  *mean_ap.mutable_data_ptr<double>() = ap_sum / static_cast<double>(valid);
  *mean_inp.mutable_data_ptr<double>() = inp_sum / static_cast<double>(valid);
  int64_t found = 0;
  for (int64_t r = 0; r < max_rank; ++r) {
    found += first_at[r];
    cmc.mutable_data_ptr<float>()[r] = static_cast<float>(static_cast<double>(found) / static_cast<double>(valid));
  }
  return {mean_ap, cmc, mean_inp, ap};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ise_fast, CPU, m) {
  m.impl("rank_metrics", OPERATOR(rank_metrics));
}

}  // namespace ise_fast
