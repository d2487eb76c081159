"""Pseudo labels as published: faiss neighbours, NumPy loops over rows, a dense matrix, scikit-learn's DBSCAN."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Matrix = NDArray[np.float32]


def neighbours(x: Tensor, k: int) -> NDArray[np.int64]:
    """[N, k] by an exact faiss index, or by torch where faiss is not installed."""
    try:
        import faiss
    except ImportError:
        squares = x.square().sum(1)
        return (squares[:, None] + squares[None, :] - 2 * (x @ x.T)).topk(k, largest=False).indices.numpy()
    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatL2(x.shape[1])
    index.add(x.numpy())
    return np.asarray(index.search(x.numpy(), k)[1])


def reciprocal(nn: NDArray[np.int64], i: int, columns: int) -> NDArray[np.int64]:
    """The first `columns` neighbours of i that have i among theirs."""
    forward = nn[i, :columns]
    return forward[np.any(nn[forward, :columns] == i, axis=1)]


def jaccard_distance(x: Tensor, k1: int = 30, k2: int = 6) -> Matrix:
    """Dense [N, N] k-reciprocal Jaccard distance (Zhong et al. 2017, in the variant of unsupervised re-ID)."""
    n = len(x)
    nn = neighbours(x, k1)
    half = min(int(np.around(k1 / 2)) + 1, k1)
    v = np.zeros((n, n), dtype=np.float32)
    halves = [reciprocal(nn, i, half) for i in range(n)]
    for i in range(n):
        r = reciprocal(nn, i, k1)
        expanded = r
        for candidate in r:
            h = halves[candidate]
            if 3 * len(np.intersect1d(h, r)) > 2 * len(h):
                expanded = np.append(expanded, h)
        expanded = np.unique(expanded)
        if len(expanded):
            weights = torch.softmax(2 * (x[i : i + 1] @ x[torch.from_numpy(expanded)].T) - 2, dim=1)
            v[i, expanded] = weights.numpy()
    if k2 > 1:
        averaged = np.zeros_like(v)
        for i in range(n):
            averaged[i] = v[nn[i, :k2]].mean(axis=0)
        v = averaged
    rows_with = [np.nonzero(v[:, j])[0] for j in range(n)]
    distance = np.zeros((n, n), dtype=np.float32)
    for i in range(n):
        common = np.zeros(n, dtype=np.float32)
        for j in np.nonzero(v[i])[0]:
            others = rows_with[j]
            common[others] += np.minimum(v[i, j], v[others, j])
        distance[i] = 1 - common / (2 - common)
    distance[distance < 0] = 0
    return distance


def pseudo_labels(x: Tensor, k1: int = 30, k2: int = 6, eps: float = 0.6, min_samples: int = 4) -> NDArray[np.int64]:
    """Features to cluster labels (-1: noise)."""
    from sklearn.cluster import DBSCAN

    distance = jaccard_distance(x, k1, k2)
    labels = DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed", n_jobs=-1).fit_predict(distance)
    return np.asarray(labels)
