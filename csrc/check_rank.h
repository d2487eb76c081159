// Argument checks of the evaluation operators, used by the CPU and the CUDA operators.
#pragma once

#include "check.h"

namespace ise_fast {

// [size] int64 beside `other`.
inline void check_ids(const Tensor& ids, const char* name, int64_t size, const Tensor& other, const char* other_name) {
  check_dim(ids, name, 1);
  check_dtype(ids, name, ScalarType::Long);
  check_size(ids, name, 0, size);
  check_same_device(ids, name, other, other_name);
}

// Arguments of rank_metrics; cameras are null when not given.
inline void check_rank_metrics(const Tensor& distance, const Tensor& query_ids, const Tensor& gallery_ids,
                               const Tensor* query_cams, const Tensor* gallery_cams, int64_t max_rank) {
  check_dim(distance, "distance", 2);
  if (distance.scalar_type() != ScalarType::Double) check_dtype(distance, "distance", ScalarType::Float);
  const int64_t queries = distance.size(0), gallery = distance.size(1);
  check_ids(query_ids, "query_ids", queries, distance, "distance");
  check_ids(gallery_ids, "gallery_ids", gallery, distance, "distance");
  check(!query_cams == !gallery_cams, query_cams ? "gallery_cams" : "query_cams",
        ": expected cameras for query and gallery or for neither, got None");
  if (query_cams) check_ids(*query_cams, "query_cams", queries, distance, "distance");
  if (gallery_cams) check_ids(*gallery_cams, "gallery_cams", gallery, distance, "distance");
  check_range(max_rank, "max_rank", 1, int64_t{1} << 20);
}

// Arguments of re_ranking: the rows of queries and gallery, and k1 + 1 neighbours of each.
inline void check_re_ranking(const Tensor& x, const Tensor& nn, int64_t queries, int64_t k2, double lambda_value) {
  check_matrix(x, "x");
  check_dim(nn, "nn", 2);
  check_dtype(nn, "nn", ScalarType::Long);
  check_size(nn, "nn", 0, x.size(0));
  check_same_device(nn, "nn", x, "x");
  check(x.size(0) < (int64_t{1} << 31) - 1, "x: expected fewer than 2^31 - 1 rows, got ", x.size(0));
  check(nn.size(1) >= 2, "nn: expected at least two columns (k1 + 1), got shape ", shape_of(nn));
  check_range(queries, "queries", 0, x.size(0));
  check_range(k2, "k2", 1, nn.size(1) - 1);
  check(0 <= lambda_value && lambda_value <= 1, "lambda_value: expected 0 to 1, got ", lambda_value);
}

}  // namespace ise_fast
