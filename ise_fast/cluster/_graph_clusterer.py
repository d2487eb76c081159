"""What the estimators have in common: input of several kinds, DBSCAN on a distance graph, the fitted attributes."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Self

import numpy as np
import torch
from scipy import sparse
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils.validation import check_array, validate_data
from torch import Tensor

from ise_fast import ops
from ise_fast._checks import check_features
from ise_fast.cluster.arrays import from_foreign, from_numpy, is_foreign, to_numpy
from ise_fast.types import CSRGraph, DBSCANResult


class GraphClusterer(ClusterMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no annotations
    """DBSCAN on a graph of distances that the subclass makes from the input."""

    eps: float
    min_samples: int

    @abstractmethod
    def _distances(self, x: Tensor | CSRGraph) -> CSRGraph | Tensor:
        """The distance graph of the input, which is a matrix or, where the subclass takes it, a sparse graph."""

    def _labels(self, x: Tensor | CSRGraph) -> DBSCANResult:
        """DBSCAN of samples that all weigh the same."""
        return ops.dbscan(self._distances(x), self.eps, self.min_samples)

    def _takes_sparse(self) -> bool:
        return False

    def fit(self, X: Any, y: None = None, sample_weight: Any = None) -> Self:
        """Cluster X.

        Args:
            X: [n_samples, n_features] NumPy array, torch tensor, CuPy array or other array with DLPack, or anything
                NumPy takes; for what else is taken see the class.
            y: ignored, for scikit-learn's API.
            sample_weight: [n_samples] weight of each sample, 1 if not given: a core sample is one whose neighbours,
                with itself, have a total weight of at least min_samples.

        Returns:
            The fitted estimator.

        Raises:
            TypeError, ValueError: naming the argument.
        """
        if is_foreign(X):
            source, restore = from_foreign("X", X)
            x: Tensor | CSRGraph = check_features("X", source)
            if len(source) == 0:
                raise ValueError(f"X: expected at least one sample, got shape {tuple(source.shape)}")
            self.n_features_in_ = source.shape[1]
        else:
            source, restore = validate_data(self, X, accept_sparse="csr" if self._takes_sparse() else False), to_numpy
            x = self._from_sparse(source) if sparse.issparse(source) else from_numpy(source)

        if sample_weight is None:
            labels, core_mask = self._labels(x)
        else:
            weights = check_weights(sample_weight, source.shape[0])
            labels, core_mask = weighted_dbscan(self._distances(x), self.eps, self.min_samples, weights)

        core = core_mask.nonzero()[:, 0]
        self.labels_ = restore(labels)
        self.core_sample_indices_ = restore(core)
        rows = source[core if isinstance(source, Tensor) else core.numpy()]
        self.components_ = restore(rows) if isinstance(rows, Tensor) else rows
        return self

    def _from_sparse(self, matrix: Any) -> Tensor | CSRGraph:
        raise NotImplementedError  # only where _takes_sparse


def check_weights(weights: Any, samples: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """[samples] float64, finite.

    Raises:
        ValueError: if they are not.
    """
    if is_foreign(weights):
        weights = to_numpy(from_foreign("sample_weight", weights)[0])
    checked = check_array(
        np.atleast_1d(np.asarray(weights)), ensure_2d=False, dtype=np.float64, input_name="sample_weight"
    )
    if checked.shape != (samples,):
        raise ValueError(f"sample_weight: expected one weight for each of {samples} samples, got shape {checked.shape}")
    if not checked.any():
        raise ValueError("sample_weight: expected at least one weight that is not zero")
    return np.asarray(checked)


def weighted_dbscan(
    graph: CSRGraph | Tensor, eps: float, min_samples: int, weights: np.ndarray[Any, np.dtype[np.float64]]
) -> DBSCANResult:
    """DBSCAN whose core points are those with neighbours of total weight >= min_samples.

    `ops.dbscan` counts neighbours. So it gets a graph in which exactly the core points have any: their rows keep their
    neighbours, at distance 0; other rows leave even self out, by a stored diagonal at distance 1.
    """
    ops.dbscan(graph, eps, min_samples)  # for its checks of graph, eps and min_samples
    near = _neighbors(graph, eps)
    core = near @ weights >= min_samples
    i, j = near.nonzero()
    i, j = i[core[i]], j[core[i]]
    no_self = np.setdiff1d(np.arange(len(core)), i[i == j])
    distance = np.repeat(np.array([0, 1], dtype=np.float32), [len(i), len(no_self)])
    position = np.append(i, no_self), np.append(j, no_self)
    only_core = CSRGraph.from_scipy(sparse.csr_array((distance, position), shape=near.shape))
    return ops.dbscan(only_core.to(graph.device), 0.5, 1)


def _neighbors(graph: CSRGraph | Tensor, eps: float) -> Any:
    """[N, N] sparse, 1 where the distance is at most eps; a diagonal that a sparse graph does not store counts."""
    if isinstance(graph, Tensor):
        return sparse.csr_array(to_numpy(graph <= torch.tensor(eps, dtype=graph.dtype)).astype(np.float64))
    matrix = graph.to_scipy().tocoo()
    near = matrix.data <= matrix.data.dtype.type(eps)
    implicit = np.setdiff1d(np.arange(graph.shape[0]), matrix.row[matrix.row == matrix.col])
    position = np.append(matrix.row[near], implicit), np.append(matrix.col[near], implicit)
    return sparse.csr_array((np.ones(len(position[0])), position), shape=graph.shape)
