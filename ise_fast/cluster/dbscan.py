"""DBSCAN as a drop-in for scikit-learn's."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ise_fast import ops
from ise_fast._checks import check_choice, check_int, check_number
from ise_fast._search_progress import watched_search
from ise_fast.cluster._graph_clusterer import GraphClusterer
from ise_fast.cluster._nearest_core import nearest_by_features
from ise_fast.cluster.arrays import from_numpy
from ise_fast.reference.neighbors import of_ordinary_length
from ise_fast.sharded import HeldRows, Peers
from ise_fast.sharded.density import own_dbscan
from ise_fast.sharded.radius import own_radius
from ise_fast.types import CSRGraph, DBSCANResult


class DBSCAN(GraphClusterer):
    """Density clustering with exactly scikit-learn's labels, without an N x N matrix.

    Args:
        eps: largest distance of neighbours, >= 0.
        min_samples: neighbours, self included, that make a core sample, >= 1.
        metric: "euclidean", "sqeuclidean", "cosine", or "precomputed": X is then a square matrix of distances, dense,
            scipy sparse or a `CSRGraph`; in the last two an entry that is not stored means "not neighbours".
        algorithm: "auto", "brute", "kd_tree" or "ball_tree": says no more than how float32 input is compared (below).
        leaf_size: taken for scikit-learn's sake, as is `n_jobs`; it changes no result there and nothing here.
        n_jobs: see `leaf_size`. Threads are torch's (torch.set_num_threads).
        verbose: show how far the search for neighbours is, and what it will take: a bar on a terminal, else the log
            (level INFO). On a GPU only the estimate; rows of a group of processes tell nothing.

    scikit-learn's `p` and `metric_params`, other metrics and callables are refused.

    float32 input is compared as scikit-learn does: in float64 where it takes a tree, which "auto" does for the
    Euclidean distance of more than 11 samples with at most 15 columns, else as by its brute force (see
    `ise_fast.ops.radius_graph`). Other NumPy types are compared as float64, float16 and bfloat16 tensors as float32.
    Sparse features are made dense.

    Attributes:
        labels_: [n_samples] cluster of each sample; -1 is noise.
        core_sample_indices_: indices of the core samples.
        components_: [n_core_samples, n_features] the core samples.
        n_features_in_: number of columns seen by `fit`.

    The attributes are of the kind and on the device of the input: NumPy, torch, or CuPy; torch for a `CSRGraph`.
    `predict` compares features in float32, float64 ones by their differences from the first core sample.

    Example:
        >>> import numpy as np
        >>> X = np.array([[1, 2], [2, 2], [2, 3], [8, 7], [8, 8], [25, 80]])
        >>> DBSCAN(eps=3, min_samples=2).fit(X).labels_
        array([ 0,  0,  0,  1,  1, -1])

    Source: Ester et al., KDD 1996.
    """

    def __init__(
        self,
        eps: float = 0.5,
        min_samples: int = 5,
        metric: str = "euclidean",
        *,
        algorithm: str = "auto",
        leaf_size: int = 30,
        n_jobs: int | None = None,
        verbose: bool = False,
    ) -> None:
        self.eps = eps
        self.min_samples = min_samples
        self.metric = metric
        self.algorithm = algorithm
        self.leaf_size = leaf_size
        self.n_jobs = n_jobs
        self.verbose = verbose

    def _check_metric(self) -> None:
        check_choice("metric", self.metric, ("euclidean", "sqeuclidean", "cosine", "precomputed"))
        check_choice("algorithm", self.algorithm, ("auto", "brute", "kd_tree", "ball_tree"))

    def _distances(self, x: Tensor, eps: float) -> CSRGraph:
        with watched_search(x, 1, shown=bool(self.verbose)):
            return ops.radius_graph(self._compared(x, len(x)), eps, metric=self.metric)

    def _compared(self, x: Tensor, samples: int) -> Tensor:
        """In float64 where scikit-learn's trees do, of `samples` rows in all."""
        tree = samples > 11 and x.shape[1] <= 15 if self.algorithm == "auto" else self.algorithm != "brute"
        if self.metric == "cosine":
            return of_ordinary_length(x)
        return x.double() if tree and self.metric == "euclidean" else x

    def _own_labels(self, x: Tensor, peers: Peers) -> DBSCANResult:
        eps, least = peers.together(
            lambda: (check_number("eps", self.eps, 0), check_int("min_samples", self.min_samples, 1))
        )
        peers.same(eps=eps, min_samples=least, metric=self.metric)
        features = HeldRows("X", x, peers, keep_double=True, unit=False)
        features.x = self._compared(features.x, features.rows)
        return own_dbscan(own_radius(features, eps, self.metric), eps, least)

    def _nearest_core(self, x: Tensor) -> Tensor:
        return nearest_by_features(self._core_rows, x, self.eps, self.metric)

    def _keep(self, x: Tensor | CSRGraph) -> None:
        if isinstance(x, Tensor) and self.metric != "precomputed":
            self._core_rows = x[self._core]

    def _takes_sparse(self) -> bool:
        return True

    def _from_sparse(self, matrix: Any) -> Tensor | CSRGraph:
        return from_numpy(matrix.toarray()) if self.metric != "precomputed" else super()._from_sparse(matrix)
