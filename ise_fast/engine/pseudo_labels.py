"""Features of all training images -> pseudo labels: k-reciprocal Jaccard graph, DBSCAN, unit centroids; timed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from ise_fast import ops
from ise_fast.engine.config import ClusterConfig
from ise_fast.engine.errors import NonFiniteError
from ise_fast.types import CSRGraph


@dataclass(frozen=True)
class PseudoLabels:
    """Cluster of every training image and the unit-normalised mean feature of every cluster."""

    labels: Tensor  # [N] int64 on the CPU, -1: outlier
    centroids: Tensor  # [K, d] float32
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def clusters(self) -> int:
        return self.centroids.shape[0]

    @property
    def outliers(self) -> int:
        return int((self.labels < 0).sum())

    @property
    def sizes(self) -> Tensor:
        """[K] int64: images in each cluster."""
        return torch.bincount(self.labels[self.labels >= 0], minlength=self.clusters)


class Stopwatch:
    """Seconds by stage; on a GPU every stage waits for its work, so that the time lands where it is spent."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = self._now()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + self._now() - start

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def check_features(features: Tensor, what: str) -> None:
    """Stop at the first features that are not finite.

    Raises:
        NonFiniteError: naming `what` and the rows.
    """
    finite = torch.isfinite(features).all(dim=1)
    if not bool(finite.all()):
        bad = torch.nonzero(~finite).flatten()
        raise NonFiniteError(
            f"{what}: {bad.numel()} of {features.shape[0]} rows hold NaN or infinity, the first is row {int(bad[0])}; "
            "lower --lr, set --clip-grad 1, or use --precision fp32"
        )


def cluster(features: Tensor, config: ClusterConfig) -> PseudoLabels:
    """Cluster unit rows into pseudo labels.

    Args:
        features: [N, d] float32 unit rows, one per training image.
        config: k1, k2, eps and min_samples.
    """
    watch = Stopwatch(features.device)
    with watch.stage("jaccard"):
        graph = ops.jaccard_graph(features, config.k1, config.k2, eps=config.eps)
    with watch.stage("dbscan"):
        labels = ops.dbscan(graph, config.eps, config.min_samples).labels
    with watch.stage("centroids"):
        centroids = cluster_centroids(features, labels)
    return PseudoLabels(labels.cpu(), centroids, watch.seconds)


def cluster_centroids(features: Tensor, labels: Tensor) -> Tensor:
    """Unit-normalised mean feature of each cluster, outliers left out.

    Args:
        features: [N, d] float32.
        labels: [N] int64, -1 for outliers, same device.

    Returns:
        [K, d] float32. Each mean is summed in image order, in float64: the same bits for any number of threads.
    """
    order = torch.argsort(labels, stable=True)
    order = order[int((labels < 0).sum()) :]
    sizes = torch.bincount(labels[order])
    if sizes.numel() == 0:
        return features.new_zeros((0, features.shape[1]))
    rows = features[order].double()
    means = torch.segment_reduce(rows, "mean", lengths=sizes, axis=0)
    return F.normalize(means, dim=1).float()


@dataclass(frozen=True)
class EpsAdvice:
    """What the distances say about eps when clustering found too little."""

    quantiles: dict[float, float]  # of the distance to the min_samples-th neighbour
    trials: dict[float, int]  # eps -> clusters
    eps: float | None  # the smallest eps that gives the most clusters; None: no eps gives one

    def __str__(self) -> str:
        at = ", ".join(f"{q:.0%} {d:.3f}" for q, d in self.quantiles.items())
        tried = ", ".join(f"{eps:.2f}: {k}" for eps, k in self.trials.items())
        nothing = "no --eps below 1 gives clusters: lower --min-samples"
        best = nothing if self.eps is None else f"try --eps {self.eps:.2f}"
        return f"distance to the min_samples-th neighbour by quantile: {at}; clusters by eps: {tried}; {best}"


def advise_eps(features: Tensor, config: ClusterConfig) -> EpsAdvice:
    """Cluster again at several radii and look where clusters are.

    One graph serves all radii. It holds every pair below 1 for up to 50,000 images (a few thousand pairs a row); beyond
    that it stays close to the configured eps, to stay within memory.
    """
    widest = 0.999 if features.shape[0] <= 50_000 else min(0.999, config.eps + 0.15)
    graph = ops.jaccard_graph(features, config.k1, config.k2, eps=widest)
    distances = _kth_smallest(graph, config.min_samples).clamp_max(1.0)
    quantiles = {q: float(torch.quantile(distances, q)) for q in (0.05, 0.25, 0.5, 0.75, 0.95)}
    trials = {}
    for step in range(2, 20):
        eps = step / 20
        if eps <= widest:
            labels = ops.dbscan(_within(graph, eps), eps, config.min_samples).labels
            trials[eps] = int(labels.max()) + 1
    most = max(trials.values())
    return EpsAdvice(quantiles, trials, min(e for e, k in trials.items() if k == most) if most > 0 else None)


def _kth_smallest(graph: CSRGraph, k: int) -> Tensor:
    """[N] distance to the k-th nearest stored neighbour, self included; 1 where fewer are stored."""
    rows = torch.repeat_interleave(torch.arange(graph.shape[0], device=graph.device), graph.indptr.diff())
    by_value = torch.argsort(graph.values, stable=True)
    order = by_value[torch.argsort(rows[by_value], stable=True)]
    enough = graph.indptr.diff() >= k
    result = graph.values.new_ones(graph.shape[0])
    result[enough] = graph.values[order][graph.indptr[:-1][enough] + k - 1]
    return result


def _within(graph: CSRGraph, eps: float) -> CSRGraph:
    keep = graph.values <= eps
    counts = torch.cat((keep.new_zeros(1, dtype=torch.int64), keep.cumsum(0)))
    return CSRGraph(counts[graph.indptr], graph.indices[keep], graph.values[keep], graph.shape)
