"""The pseudo labels of unsupervised re-identification as one estimator."""

from __future__ import annotations

from torch import Tensor

from ise_fast import ops
from ise_fast._checks import check_int
from ise_fast.cluster._graph_clusterer import GraphClusterer
from ise_fast.ops.jaccard import distinct_jaccard_graph
from ise_fast.types import CSRGraph, DBSCANResult


class JaccardDBSCAN(GraphClusterer):
    """DBSCAN on the k-reciprocal Jaccard distance, kept sparse: only pairs within eps are ever stored.

    Args:
        eps: largest Jaccard distance of neighbours, in [0, 1): unrelated samples are at distance 1.
        min_samples: neighbours, self included, that make a core sample, >= 1.
        k1: neighbours of the k-reciprocal encoding, >= 1; all samples where there are fewer.
        k2: neighbours of the query expansion, 1 (none) or more; at most k1.
        max_pairs: the most pairs within eps that may be stored (see `ise_fast.ops.jaccard_graph`), or `fit` raises
            ValueError. Of samples that are equal, and so have equal distances, only the first few count.

    The features are meant to be unit rows; nothing normalises them here, a warning says where they are not. Everything
    but float32 is converted to it.

    Attributes:
        labels_: [n_samples] cluster of each sample; -1 is noise.
        core_sample_indices_: indices of the core samples.
        components_: [n_core_samples, n_features] the core samples.
        n_features_in_: number of columns seen by `fit`.

    The attributes are of the kind and on the device of the input: NumPy, torch, or CuPy.

    Example:
        >>> import numpy as np
        >>> X = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
        >>> JaccardDBSCAN(k1=4, k2=2).fit_predict(X)
        array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2])

    Source: Zhong et al., CVPR 2017 (distance); Ester et al., KDD 1996 (DBSCAN).
    """

    def __init__(
        self, eps: float = 0.6, min_samples: int = 4, k1: int = 30, k2: int = 6, *, max_pairs: int | None = None
    ) -> None:
        self.eps = eps
        self.min_samples = min_samples
        self.k1 = k1
        self.k2 = k2
        self.max_pairs = max_pairs

    def _distances(self, x: Tensor | CSRGraph) -> CSRGraph:
        rows, k1, k2 = self._arguments(x)
        return ops.jaccard_graph(rows, k1, k2, eps=self.eps, max_pairs=self.max_pairs)

    def _labels(self, x: Tensor | CSRGraph) -> DBSCANResult:
        rows, k1, k2 = self._arguments(x)
        graph, twin = distinct_jaccard_graph(
            rows, k1, k2, eps=self.eps, min_samples=self.min_samples, max_pairs=self.max_pairs
        )
        labels, core_mask = ops.dbscan(graph, self.eps, self.min_samples)
        return DBSCANResult(labels, core_mask) if twin is None else DBSCANResult(labels[twin], core_mask[twin])

    def _arguments(self, x: Tensor | CSRGraph) -> tuple[Tensor, int, int]:
        assert isinstance(x, Tensor)  # sparse input is refused before
        k1 = min(check_int("k1", self.k1, 1), len(x))
        return x.float(), k1, min(check_int("k2", self.k2, 1, self.k1, "k1"), k1)
