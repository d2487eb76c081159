// Every operator's schema, on one screen. csrc/cpu and csrc/cuda hold the kernels, one file per operator family.
#include <torch/csrc/stable/library.h>

// The tests build the CUDA kernels for the host, under another name (docs/kernels.md).
#ifndef ISE_FAST_LIBRARY
#define ISE_FAST_LIBRARY ise_fast
#endif
#define ISE_FAST_SCHEMAS(library, m) STABLE_TORCH_LIBRARY(library, m)

ISE_FAST_SCHEMAS(ISE_FAST_LIBRARY, m) {
  // Support samples and the ISE loss
  m.def("nearest_centroids(Tensor features, Tensor centroids, Tensor labels, int k) -> (Tensor, Tensor)");

  // Evaluation
  m.def(
      "rank_metrics(Tensor distance, Tensor query_ids, Tensor gallery_ids, Tensor? query_cams, Tensor? gallery_cams, "
      "int max_rank) -> (Tensor mAP, Tensor cmc, Tensor mINP, Tensor ap)");
}
