"""Bottom-up merging the plain way: a matrix of all dissimilarities, sorted, and loops over pairs of images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


def merge(x: Tensor, labels: Tensor, penalty: float, merges: int) -> NDArray[np.int64]:
    """Labels after one step: D(i, j) = |x_i - x_j|^2 + penalty (sizes of both clusters), nearest pairs first.

    Args:
        x: [N, d].
        labels: [N] int64.
        penalty: on the sizes before the step.
        merges: how many.
    """
    rows, label = x.numpy(), labels.numpy().copy()
    sizes = np.bincount(label)
    n = len(rows)
    squares = (rows * rows).sum(1)
    dissimilarity = squares[:, None] + squares[None, :] - 2 * rows @ rows.T
    for i in range(n):
        for j in range(i):
            if label[i] == label[j]:
                dissimilarity[i, j] = np.inf
            else:
                dissimilarity[i, j] += penalty * (sizes[label[i]] + sizes[label[j]])
        dissimilarity[i, i:] = np.inf
    done = 0
    for pair in np.argsort(dissimilarity, axis=None, kind="stable"):
        i, j = divmod(int(pair), n)
        if done == merges or not np.isfinite(dissimilarity[i, j]):
            break
        first, second = sorted((int(label[i]), int(label[j])))
        if first == second:
            continue
        for k in range(n):
            if label[k] == second:
                label[k] = first
        done += 1
    return np.asarray(np.unique(label, return_inverse=True)[1])
