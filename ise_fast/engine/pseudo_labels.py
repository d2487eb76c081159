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
from ise_fast.engine.eps_advice import advise_eps as advise_eps
from ise_fast.engine.errors import NonFiniteError
from ise_fast.ops.jaccard import distinct_jaccard_graph


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
        config: k1, k2, eps, min_samples and max_pairs.

    Raises:
        TooManyPairs: the features have collapsed.
    """
    watch = Stopwatch(features.device)
    with watch.stage("jaccard"):
        graph, twin = distinct_jaccard_graph(
            features,
            config.k1,
            config.k2,
            eps=config.eps,
            min_samples=config.min_samples,
            max_pairs=config.max_pairs or None,
        )
    with watch.stage("dbscan"):
        labels = ops.dbscan(graph, config.eps, config.min_samples).labels
        labels = labels if twin is None else labels[twin]
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
