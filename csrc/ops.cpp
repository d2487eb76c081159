// Every operator's schema, on one screen. csrc/cpu and csrc/cuda hold the kernels, one file per operator family.
#include <torch/csrc/stable/library.h>

// The tests build the CUDA kernels for the host, under another name (docs/kernels.md).
#ifndef ISE_FAST_LIBRARY
#define ISE_FAST_LIBRARY ise_fast
#endif
#define ISE_FAST_SCHEMAS(library, m) STABLE_TORCH_LIBRARY(library, m)

ISE_FAST_SCHEMAS(ISE_FAST_LIBRARY, m) {
  // Neighbours; `block` and `width` (0: chosen) are for tests, the results do not depend on them
  m.def(
      "knn(Tensor x, int k, Tensor? y=None, str metric=\"sqeuclidean\", int block=0, int width=0) -> (Tensor, Tensor, "
      "Tensor)");
  m.def(
      "radius_graph(Tensor x, float eps, str metric=\"euclidean\", int block=0, int width=0) -> (Tensor, Tensor, "
      "Tensor)");

  // Pseudo labels. A CSR graph is (indptr i64, indices, values); begin, end: the rows to compute;
  // more than max_pairs entries are refused before they are stored.
  m.def("k_reciprocal_encoding(Tensor x, Tensor nn, int k2) -> (Tensor indptr, Tensor indices, Tensor values)");
  m.def("jaccard_distance(Tensor indptr, Tensor indices, Tensor values) -> Tensor");
  m.def(
      "jaccard_graph(Tensor indptr, Tensor indices, Tensor values, float eps, int begin, int end, "
      "int max_pairs=9223372036854775807) -> (Tensor indptr, Tensor indices, Tensor values)");
  m.def(
      "dbscan(Tensor indptr, Tensor indices, Tensor values, float eps, int min_samples) -> (Tensor labels, "
      "Tensor core_mask)");
  m.def("dbscan_dense(Tensor graph, float eps, int min_samples) -> (Tensor labels, Tensor core_mask)");

  // The same on a part of the rows, while blocks of other processes' rows go by (ise_fast/sharded)
  m.def("pattern_products(Tensor x, Tensor y, Tensor indptr, Tensor indices, str kind) -> Tensor");
  m.def("softmax_rows(Tensor product, Tensor indptr) -> Tensor");
  m.def("reciprocal_bits(Tensor nn, int begin, int end, int width) -> Tensor");
  m.def("expanded_sets(Tensor nn, Tensor bits, int width, int begin, int end) -> (Tensor indptr, Tensor indices)");
  m.def(
      "average_rows(Tensor indptr, Tensor indices, Tensor values, Tensor neighbours) -> (Tensor indptr, Tensor "
      "indices, "
      "Tensor values)");
  m.def(
      "jaccard_pairs(Tensor a_indptr, Tensor a_indices, Tensor a_values, Tensor b_indptr, Tensor b_indices, Tensor "
      "b_values, bool same, float eps, int max_pairs) -> (Tensor indptr, Tensor indices, Tensor values)");
  m.def(
      "radius_pairs(Tensor x, Tensor y, float eps, str metric, bool same, int block=0, int width=0) -> (Tensor indptr, "
      "Tensor indices, Tensor values)");
  m.def("unite_(Tensor(a!) parent, Tensor first, Tensor second) -> ()");

  // Support samples and the ISE loss; degree_tensor takes the place of degree in a CUDA graph
  m.def("nearest_centroids(Tensor features, Tensor centroids, Tensor labels, int k) -> (Tensor, Tensor)");
  m.def(
      "support_samples(Tensor features, Tensor centroids, Tensor labels, Tensor nearest, float degree) -> (Tensor "
      "supports, Tensor norm)");
  m.def("support_samples_backward(Tensor grad, Tensor features, Tensor supports, Tensor norm) -> Tensor");
  m.def(
      "ise_loss(Tensor features, Tensor labels, Tensor centroids, float degree, int k, float temperature, float "
      "lp_temperature, float lp_weight, Tensor? gram, bool needs_gradient, Tensor? degree_tensor=None) -> (Tensor "
      "loss, "
      "Tensor contrastive, Tensor label_preserving, Tensor supports, Tensor contrastive_gradient, Tensor lp_gradient)");
  m.def(
      "ise_loss_backward(Tensor grad_loss, Tensor grad_contrastive, Tensor grad_label_preserving, Tensor features, "
      "Tensor contrastive_gradient, Tensor lp_gradient, float lp_weight) -> Tensor");
  m.def(
      "cluster_nce_loss(Tensor features, Tensor labels, Tensor centroids, float temperature, bool needs_gradient) -> "
      "(Tensor loss, Tensor gradient)");
  m.def("cluster_nce_loss_backward(Tensor grad, Tensor features, Tensor gradient) -> Tensor");
  m.def(
      "update_memory_(Tensor(a!) centroids, Tensor rows, Tensor labels, Tensor? supports, float momentum, str update) "
      "-> "
      "()");
  m.def("refresh_gram_(Tensor(a!) gram, Tensor centroids, Tensor? labels) -> ()");

  // Other methods: what each loss returns beside its value is the gradient, which loss_backward scales
  m.def(
      "group_nce_loss(Tensor features, Tensor sums, Tensor counts, Tensor labels, float temperature, float eps, bool "
      "needs_gradient) -> (Tensor loss, Tensor gradient)");
  m.def(
      "soft_nce_loss(Tensor features, Tensor table, Tensor columns, Tensor weights, float temperature, Tensor? smooth, "
      "int negatives, Tensor? ranges, Tensor? excluded, bool needs_gradient) -> (Tensor loss, Tensor gradient)");
  m.def("loss_backward(Tensor grad, Tensor features, Tensor gradient, str loss) -> Tensor");
  m.def("refresh_groups_(Tensor(a!) sums, Tensor table, Tensor indptr, Tensor rows, Tensor touched) -> ()");

  m.def("kmeans_start(Tensor x, Tensor draws) -> Tensor");
  m.def(
      "kmeans_step(Tensor x, Tensor centres) -> (Tensor labels, Tensor sums, Tensor counts, Tensor inertia, Tensor "
      "distances)");
  m.def(
      "kmeans(Tensor x, Tensor centres, int iterations) -> (Tensor labels, Tensor centres, Tensor inertia, Tensor "
      "iterations)");
  m.def(
      "merge_nearest(Tensor indptr, Tensor indices, Tensor values, Tensor labels, float penalty, int merges) -> "
      "(Tensor "
      "labels, Tensor pairs, Tensor dissimilarity)");
  m.def(
      "cycle_positives(Tensor table, Tensor rows, float threshold, int least) -> (Tensor indptr, Tensor indices, "
      "Tensor "
      "values)");
  m.def(
      "multi_label_loss(Tensor features, Tensor table, Tensor indptr, Tensor indices, float delta, float hard_share, "
      "bool needs_gradient) -> (Tensor loss, Tensor gradient)");

  // Evaluation
  m.def(
      "rank_metrics(Tensor distance, Tensor query_ids, Tensor gallery_ids, Tensor? query_cams, Tensor? gallery_cams, "
      "int max_rank) -> (Tensor mAP, Tensor cmc, Tensor mINP, Tensor ap)");
  m.def("re_ranking(Tensor x, Tensor nn, int queries, int k2, float lambda_value, int block=0) -> Tensor");
}
