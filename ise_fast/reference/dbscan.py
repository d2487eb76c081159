"""DBSCAN (Ester et al., KDD 1996) with the labels of scikit-learn."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ise_fast._checks import check_finite, check_graph, check_int, check_number, check_tensor
from ise_fast.types import CSRGraph, DBSCANResult


def dbscan(graph: CSRGraph | Tensor, eps: float, min_samples: int = 4) -> DBSCANResult:
    """Density clusters of a distance graph.

    Which points are neighbours, arguments, result and errors are those of `ise_fast.ops.dbscan`.
    """
    eps = check_number("eps", eps, 0)
    min_samples = check_int("min_samples", min_samples, 1)
    neighbors = _sparse_neighbors(graph, eps) if isinstance(graph, CSRGraph) else _dense_neighbors(graph, eps)
    n = len(neighbors)
    core = [len(neighbors[i]) >= min_samples for i in range(n)]
    labels = [-1] * n
    clusters = 0
    for start in range(n):
        if labels[start] != -1 or not core[start]:
            continue
        labels[start] = clusters
        stack = [start]
        while stack:
            for j in neighbors[stack.pop()]:
                if labels[j] == -1:
                    labels[j] = clusters
                    if core[j]:
                        stack.append(j)
        clusters += 1
    return DBSCANResult(
        torch.tensor(labels, dtype=torch.int64, device=graph.device),
        torch.tensor(core, dtype=torch.bool, device=graph.device),
    )


def _dense_neighbors(distance: Tensor, eps: float) -> list[list[int]]:
    check_tensor("graph", distance, 2, (torch.float32, torch.float64))
    if distance.shape[0] != distance.shape[1]:
        raise ValueError(f"graph: expected a square matrix, got shape {tuple(distance.shape)}")
    check_finite("graph", distance)
    if (distance < 0).any():
        raise ValueError(f"graph: expected distances of at least 0, got {distance.min().item()}")
    within = distance <= torch.tensor(eps, dtype=distance.dtype, device="cpu")
    return [row.nonzero()[:, 0].tolist() for row in within]


def _sparse_neighbors(graph: CSRGraph, eps: float) -> list[list[int]]:
    check_graph("graph", graph)
    matrix = graph.to_scipy()
    bound = matrix.data.dtype.type(eps)
    neighbors = []
    for i in range(graph.shape[0]):
        entries = slice(matrix.indptr[i], matrix.indptr[i + 1])
        columns, values = matrix.indices[entries], matrix.data[entries]
        near = columns[values <= bound]
        neighbors.append((near if i in columns else np.append(near, i)).tolist())
    return neighbors
