"""Pseudo labels by k-means (`--labels kmeans`): as many clusters as asked for, and no outliers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ise_fast import ops
from ise_fast._stopwatch import Stopwatch
from ise_fast.methods.centroids import cluster_centroids
from ise_fast.methods.dbscan_labels import check_at_most
from ise_fast.methods.interface import Labeller, LabelSource, flag
from ise_fast.methods.records import PseudoLabels
from ise_fast.sharded import HeldRows
from ise_fast.sharded.centroids import shared_centroids
from ise_fast.sharded.kmeans import shared_kmeans
from ise_fast.sharded.kmeans_start import shared_kmeans_start
from ise_fast.types import KMeansResult


@dataclass(frozen=True)
class KMeansSettings:
    """Labels by k-means."""

    clusters: int = flag(0, "k-means: number of clusters; 0: one for 25 images, but at least 32")
    kmeans_iters: int = flag(300, "k-means: most iterations")
    warm_start: bool = flag(False, "k-means: start from the centres of the epoch before, not from new ones")


class KMeansLabels(Labeller):
    """Lloyd's k-means from k-means++ starts that are drawn from the seed and the epoch."""

    figures = ("inertia", "steps")

    def __init__(self, settings: KMeansSettings, seed: int) -> None:
        self.settings = settings
        self.seed = seed
        self.centres: Tensor | None = None  # of the epoch before, kept for a warm start

    def __call__(self, features: Tensor, cams: Tensor | None, epoch: int) -> PseudoLabels:
        watch = Stopwatch(features.device)
        with watch.stage("kmeans"):
            result = ops.kmeans(features, self._start(features, epoch), iterations=self.settings.kmeans_iters)
            _, labels = torch.unique(result.labels, return_inverse=True)
        with watch.stage("centroids"):
            centroids = cluster_centroids(features, labels)
        return self._labels(result, labels, centroids, watch)

    @property
    def shares(self) -> bool:
        return True

    def shared(self, features: HeldRows, epoch: int) -> PseudoLabels:
        watch, settings = Stopwatch(features.x.device), self.settings
        with watch.stage("kmeans"):
            if self.centres is None:
                start = shared_kmeans_start(features, self._count(features.rows), self._generator(epoch))
            else:
                start = self.centres.to(features.x.device)
            result = shared_kmeans(features, start, settings.kmeans_iters)
            every = features.peers.gather(result.labels, features.counts)
            _, labels = torch.unique(every, return_inverse=True)
        with watch.stage("centroids"):
            centroids = shared_centroids(features, labels[features.first : features.first + features.own])
        return self._labels(result, labels, centroids, watch)

    def _labels(self, result: KMeansResult, labels: Tensor, centroids: Tensor, watch: Stopwatch) -> PseudoLabels:
        if self.settings.warm_start:
            self.centres = result.centres.cpu()
        figures = {"inertia": result.inertia, "steps": result.iterations}
        return PseudoLabels(labels, centroids, figures=figures, seconds=watch.seconds)

    def _start(self, features: Tensor, epoch: int) -> Tensor:
        if self.centres is not None:
            return self.centres.to(features.device)
        return features[ops.kmeans_start(features, self._count(len(features)), self._generator(epoch))]

    def _generator(self, epoch: int) -> torch.Generator:
        seed = np.random.SeedSequence((self.seed, epoch, 0, 3)).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(seed[0]))

    def _count(self, images: int) -> int:
        return self.settings.clusters or min(images, max(32, images // 25))

    def advice(self, features: Tensor) -> str:
        return f"k-means was asked for {self._count(len(features))}: raise --clusters"

    def check(self, images: int) -> None:
        check_at_most("clusters", self.settings.clusters, images)

    def state_dict(self) -> dict[str, Any]:
        return {"centres": self.centres}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.centres = state["centres"]


KMEANS = LabelSource(settings=KMeansSettings, make=KMeansLabels)
