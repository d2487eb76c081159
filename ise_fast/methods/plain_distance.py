"""DBSCAN on the Euclidean or the cosine distance: the graph, if it is not too large, and advice on its radius."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ise_fast import ops
from ise_fast._collapse import most_pairs
from ise_fast.methods.eps_advice import MOST_PAIRS, SAMPLE, EpsAdvice, within
from ise_fast.types import CSRGraph, TooManyPairs

#: The largest distance of unit rows, in either metric.
FURTHEST = 2.0
BLOCK = 200


def plain_graph(features: Tensor, eps: float, metric: str, max_pairs: int | None) -> CSRGraph:
    """All pairs within eps.

    Args:
        features: [N, d] float32 unit rows.
        eps: radius.
        metric: euclidean or cosine.
        max_pairs: most pairs; None for the same default as the Jaccard graph's.

    Raises:
        TooManyPairs: a sample of rows has so many neighbours that the graph would hold more.
    """
    most, found = most_pairs(max_pairs, len(features)), estimate_pairs(features, eps, metric)
    if found > most:
        raise TooManyPairs(
            f"max_pairs: expected at most {most} pairs within eps = {eps:g}, got about {found}; lower eps or raise "
            "max_pairs"
        )
    return ops.radius_graph(features, eps, metric=metric)


def estimate_pairs(features: Tensor, eps: float, metric: str) -> int:
    """Pairs within eps, from evenly spread rows, some at a time; exact where there are few rows."""
    rows = sample(features)
    # |x - y|^2 = 2 - 2 x.y of unit rows.
    least = 1 - eps if metric == "cosine" else 1 - eps * eps / 2
    found = sum(int((block @ features.T >= least).sum()) for block in rows.split(BLOCK))
    return found * len(features) // max(len(rows), 1)


def sample(features: Tensor) -> Tensor:
    """At most SAMPLE evenly spread rows."""
    count = min(SAMPLE, len(features))
    return features[torch.linspace(0, len(features) - 1, count, device=features.device).long()]


def advise_radius(features: Tensor, metric: str, min_samples: int) -> EpsAdvice:
    """Where the neighbour that makes a row a core point is, and the clusters at such radii.

    Args:
        features: [N, d] float32 unit rows.
        metric: euclidean or cosine.
        min_samples: of DBSCAN.
    """
    k = min(min_samples, len(features))
    reach = ops.knn(features, k, y=sample(features), metric=metric).distances[:, -1].cpu()
    quantiles = {q: float(torch.quantile(reach, q)) for q in (0.05, 0.25, 0.5, 0.75, 0.95)}
    radii = sorted({math.ceil(100 * d) / 100 for d in quantiles.values() if d > 0})
    radii = [eps for eps in radii if estimate_pairs(features, eps, metric) <= MOST_PAIRS]
    trials: dict[float, int] = {}
    if radii:
        graph = ops.radius_graph(features, radii[-1], metric=metric)
        labels = {eps: ops.dbscan(within(graph, eps), eps, min_samples).labels for eps in radii}
        trials = {eps: int(found.max()) + 1 for eps, found in labels.items()}
    most = max(trials.values(), default=0)
    best = min(eps for eps, clusters in trials.items() if clusters == most) if most > 0 else None
    return EpsAdvice(quantiles, trials, best, below=FURTHEST)
