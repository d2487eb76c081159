"""The pseudo labels of unsupervised re-identification as one estimator."""

from __future__ import annotations

from torch import Tensor

from ise_fast import ops
from ise_fast._checks import check_int
from ise_fast.cluster._graph_clusterer import GraphClusterer
from ise_fast.types import CSRGraph


class JaccardDBSCAN(GraphClusterer):
    """DBSCAN on the k-reciprocal Jaccard distance, kept sparse: only pairs within eps are ever stored.

    Args:
        eps: largest Jaccard distance of neighbours, in [0, 1): unrelated samples are at distance 1.
        min_samples: neighbours, self included, that make a core sample, >= 1.
        k1: neighbours of the k-reciprocal encoding, >= 1; all samples where there are fewer.
        k2: neighbours of the query expansion, 1 (none) or more; at most k1.

    The features are meant to be unit rows; nothing normalises them here. Everything but float32 is converted to it.

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

    def __init__(self, eps: float = 0.6, min_samples: int = 4, k1: int = 30, k2: int = 6) -> None:
        self.eps = eps
        self.min_samples = min_samples
        self.k1 = k1
        self.k2 = k2

    def _distances(self, x: Tensor | CSRGraph) -> CSRGraph:
        assert isinstance(x, Tensor)  # sparse input is refused before
        k1 = min(check_int("k1", self.k1, 1), len(x))
        k2 = min(check_int("k2", self.k2, 1, self.k1, "k1"), k1)
        return ops.jaccard_graph(x.float(), k1, k2, eps=self.eps)
