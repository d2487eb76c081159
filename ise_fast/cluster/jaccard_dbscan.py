"""The pseudo labels of unsupervised re-identification as one estimator."""

from __future__ import annotations

from torch import Tensor

from ise_fast import ops
from ise_fast._checks import check_choice, check_int, warn_unless_unit_rows
from ise_fast._search_progress import watched_search
from ise_fast.cluster._graph_clusterer import GraphClusterer
from ise_fast.cluster._nearest_core import nearest_by_jaccard
from ise_fast.ops.jaccard import distinct_jaccard_graph
from ise_fast.sharded import HeldRows, JaccardSettings, Peers, cluster
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
        metric: "jaccard", or "precomputed": X is then a square matrix of distances, dense, scipy sparse or a `CSRGraph`
            of `ise_fast.ops.jaccard_graph`; in the last two an entry that is not stored means "not neighbours".
        verbose: show how far the search for neighbours is, and what it will take: a bar on a terminal, else the log
            (level INFO). On a GPU only the estimate; rows of a group of processes tell nothing.

    Weights of samples decide who is a core sample; they do not change distances, as repeating a sample does.

    The features are meant to be unit rows; nothing normalises them here, a warning says where they are not. Everything
    but float32 is converted to it.

    Attributes:
        labels_: [n_samples] cluster of each sample; -1 is noise.
        core_sample_indices_: indices of the core samples.
        components_: [n_core_samples, n_features] the core samples.
        n_features_in_: number of columns seen by `fit`.

    The attributes are of the kind and on the device of the input: NumPy, torch, or CuPy; torch for a `CSRGraph`.

    The Jaccard distance of two samples depends on all others, so `predict` has to say what it is for a new row: the
    encodings of the fitted samples stay as they are, and a new row is encoded over them. Its neighbours are its k1
    nearest fitted samples, and it is a neighbour of those to which it is at least as near as their own k1-th; if there
    is none it gets -1. The rest is as for a sample (see `ise_fast.ops.k_reciprocal_encoding`), but that it is no
    neighbour of itself. So new rows do not see each other, and fitting them all together may give other labels. The
    fitted X is kept for `predict`, which begins as `fit` does and takes a time that grows with the number of fitted
    samples times that of new ones: for thousands of each a few times that of `fit`.

    Example:
        >>> import numpy as np
        >>> X = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
        >>> JaccardDBSCAN(k1=4, k2=2).fit_predict(X)
        array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2])

    Source: Zhong et al., CVPR 2017 (distance); Ester et al., KDD 1996 (DBSCAN).
    """

    def __init__(
        self,
        eps: float = 0.6,
        min_samples: int = 4,
        k1: int = 30,
        k2: int = 6,
        *,
        max_pairs: int | None = None,
        metric: str = "jaccard",
        verbose: bool = False,
    ) -> None:
        self.eps = eps
        self.min_samples = min_samples
        self.k1 = k1
        self.k2 = k2
        self.max_pairs = max_pairs
        self.metric = metric
        self.verbose = verbose

    def _check_metric(self) -> None:
        check_choice("metric", self.metric, ("jaccard", "precomputed"))

    def _distances(self, x: Tensor, eps: float) -> CSRGraph:
        k1, k2 = self._widths(x)
        with watched_search(x, k1, shown=bool(self.verbose)):
            return ops.jaccard_graph(x.float(), k1, k2, eps=eps, max_pairs=self.max_pairs)

    def _distinct(self, x: Tensor, eps: float) -> tuple[CSRGraph, Tensor | None]:
        k1, k2 = self._widths(x)
        with watched_search(x, k1, shown=bool(self.verbose)):
            return distinct_jaccard_graph(
                x.float(), k1, k2, eps=eps, min_samples=self.min_samples, max_pairs=self.max_pairs
            )

    def _own_labels(self, x: Tensor, peers: Peers) -> DBSCANResult:
        settings = peers.together(lambda: JaccardSettings(self.eps, self.min_samples, self.k1, self.k2, self.max_pairs))
        return cluster(HeldRows("X", x, peers), settings)

    def _widths(self, x: Tensor) -> tuple[int, int]:
        k1 = min(check_int("k1", self.k1, 1), len(x))
        return k1, min(check_int("k2", self.k2, 1, self.k1, "k1"), k1)

    def _nearest_core(self, x: Tensor) -> Tensor:
        warn_unless_unit_rows("X", x)
        return nearest_by_jaccard(self._rows, self._core, x.float(), self.k1, self.k2, self.eps)

    def _keep(self, x: Tensor | CSRGraph) -> None:
        if isinstance(x, Tensor) and self.metric != "precomputed":
            self._rows = x.float()
