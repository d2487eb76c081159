"""How well pseudo labels agree with true identities, where these are known: only printed, training never sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


def judge_of(ids: NDArray[np.int64]) -> Callable[[Tensor], dict[str, float]]:
    """A function of pseudo labels alone: whoever calls it cannot see the identities.

    Args:
        ids: [N] true identities.
    """
    return lambda labels: cluster_quality(labels.numpy(), ids)


def cluster_quality(labels: NDArray[Any], ids: NDArray[Any]) -> dict[str, float]:
    """Figures of a clustering against the truth.

    An outlier counts as a cluster of its own, so that ways with and without outliers compare; only purity leaves out
    images that are alone, which would always be right.

    Args:
        labels: [N] int, clusters; -1: outlier.
        ids: [N] int, true identities.

    Returns:
        identities: how many there are; ARI: adjusted Rand index; NMI: mutual information over the mean entropy; purity:
        share of images whose identity is its cluster's most frequent one; precision: share of pairs in one cluster that
        are of one identity; recall: share of pairs of one identity that are in one cluster.
    """
    outliers = np.flatnonzero(labels < 0)
    clusters = labels.astype(np.int64)
    clusters[outliers] = labels.max(initial=-1) + 1 + np.arange(len(outliers))
    _, cluster, sizes = np.unique(clusters, return_inverse=True, return_counts=True)
    _, identity, truth = np.unique(ids, return_inverse=True, return_counts=True)
    cells, common = np.unique(cluster * len(truth) + identity, return_counts=True)

    together, same, right = _pairs(sizes), _pairs(truth), _pairs(common)
    chance = together * same / max(_pairs(np.array([len(labels)])), 1)
    most = (together + same) / 2
    p = common / len(labels)
    expected = (sizes[cells // len(truth)] / len(labels)) * (truth[cells % len(truth)] / len(labels))
    entropy = (_entropy(sizes) + _entropy(truth)) / 2
    largest = np.zeros(len(sizes), dtype=np.int64)
    np.maximum.at(largest, cells // len(truth), common)
    several = sizes > 1
    return {
        "identities": len(truth),
        "ARI": (right - chance) / (most - chance) if most != chance else 1.0,
        "NMI": float((p * np.log(p / expected)).sum()) / entropy if entropy > 0 else 1.0,
        "purity": float(largest[several].sum() / sizes[several].sum()) if several.any() else 1.0,
        "precision": right / together if together else 1.0,
        "recall": right / same if same else 1.0,
    }


def _pairs(sizes: NDArray[np.int64]) -> int:
    return int((sizes * (sizes - 1) // 2).sum())


def _entropy(sizes: NDArray[np.int64]) -> float:
    p = sizes / sizes.sum()
    return float(-(p * np.log(p)).sum())
