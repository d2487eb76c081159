"""DBSCAN of samples with weights, by an operator that only counts."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse
from sklearn.utils.validation import check_array
from torch import Tensor, tensor

from ise_fast import ops
from ise_fast.cluster.arrays import from_foreign, is_foreign, to_numpy
from ise_fast.types import CSRGraph, DBSCANResult


def check_weights(weights: Any, samples: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """[samples] float64, finite; a single number is the weight of every sample.

    Raises:
        ValueError: if they are not.
    """
    if is_foreign(weights):
        weights = to_numpy(from_foreign("sample_weight", weights)[0])
    given = np.asarray(weights)
    if given.ndim == 0:
        given = np.full(samples, given)
    checked = check_array(given, ensure_2d=False, dtype=np.float64, input_name="sample_weight")
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
    core = _totals(near, weights) >= min_samples
    i, j = near.nonzero()
    i, j = i[core[i]], j[core[i]]
    no_self = np.setdiff1d(np.arange(len(core)), i[i == j])
    distance = np.repeat(np.array([0, 1], dtype=np.float32), [len(i), len(no_self)])
    position = np.append(i, no_self), np.append(j, no_self)
    only_core = CSRGraph.from_scipy(sparse.csr_array((distance, position), shape=near.shape))
    return ops.dbscan(only_core.to(graph.device), 0.5, 1)


def _totals(near: Any, weights: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """[N] the total weight of each row's neighbours, rounded as scikit-learn's np.sum over them: ten of 0.1 are 1."""
    if (weights == np.rint(weights)).all():  # whose sums are exact in any order
        return np.asarray(near @ weights)
    near.sort_indices()
    return np.array([weights[row].sum() for row in np.split(near.indices, near.indptr[1:-1])])


def _neighbors(graph: CSRGraph | Tensor, eps: float) -> Any:
    """[N, N] sparse, 1 where the distance is at most eps; a diagonal that a sparse graph does not store counts."""
    if isinstance(graph, Tensor):
        return sparse.csr_array(to_numpy(graph <= tensor(eps, dtype=graph.dtype, device="cpu")).astype(np.float64))
    matrix = graph.to_scipy().tocoo()
    near = matrix.data <= matrix.data.dtype.type(eps)
    implicit = np.setdiff1d(np.arange(graph.shape[0]), matrix.row[matrix.row == matrix.col])
    position = np.append(matrix.row[near], implicit), np.append(matrix.col[near], implicit)
    return sparse.csr_array((np.ones(len(position[0])), position), shape=graph.shape)
