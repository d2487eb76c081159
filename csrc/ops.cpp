// Every operator's schema, on one screen. csrc/cpu and csrc/cuda hold the kernels, one file per operator family.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(ise_fast, m) {
  // Support samples and the ISE loss
  m.def("nearest_centroids(Tensor features, Tensor centroids, Tensor labels, int k) -> (Tensor, Tensor)");
}
