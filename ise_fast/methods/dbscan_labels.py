"""Pseudo labels by DBSCAN (`--labels dbscan`), on the k-reciprocal Jaccard distance or a plain one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ise_fast import ops
from ise_fast._stopwatch import Stopwatch
from ise_fast.methods.centroids import cluster_centroids
from ise_fast.methods.eps_advice import COLLAPSE_REMEDY, advise_eps
from ise_fast.methods.interface import Labeller, LabelSource, flag
from ise_fast.methods.plain_distance import advise_radius, plain_graph
from ise_fast.methods.records import NoLabels, PseudoLabels
from ise_fast.ops.jaccard import distinct_jaccard_graph
from ise_fast.sharded import HeldRows, JaccardSettings, jaccard_rows
from ise_fast.sharded.centroids import shared_centroids
from ise_fast.sharded.labels import label_rows
from ise_fast.types import CSRGraph, TooManyPairs


@dataclass(frozen=True)
class DBSCANSettings:
    """Labels by DBSCAN."""

    distance: Literal["jaccard", "cosine", "euclidean"] = flag(
        "jaccard", "what DBSCAN clusters by: k-reciprocal Jaccard, 1 - cosine, or Euclidean distance of unit rows"
    )
    k1: int = flag(30, "nearest neighbours of the k-reciprocal encoding, self included")
    k2: int = flag(6, "neighbours of the local query expansion; 1: none")
    eps: float = flag(0.6, "DBSCAN radius; each distance has its own scale")
    min_samples: int = flag(4, "neighbours that make a core point, self included")
    max_pairs: int = flag(0, "largest number of pairs within eps; 0: 100 million, or 500 an image")


class DBSCANLabels(Labeller):
    """A graph of distances, DBSCAN, unit centroids."""

    def __init__(self, settings: DBSCANSettings) -> None:
        self.settings = settings

    def __call__(self, features: Tensor, cams: Tensor | None, epoch: int) -> PseudoLabels:
        settings, watch = self.settings, Stopwatch(features.device)
        graph, twin = self._graph(features, settings.eps, watch)
        with watch.stage("dbscan"):
            labels = ops.dbscan(graph, settings.eps, settings.min_samples).labels
            labels = labels if twin is None else labels[twin]
        with watch.stage("centroids"):
            centroids = cluster_centroids(features, labels)
        return PseudoLabels(labels, centroids, seconds=watch.seconds)

    @property
    def shares(self) -> bool:
        return self.settings.distance == "jaccard"

    def shared(self, features: HeldRows, epoch: int) -> PseudoLabels:
        settings, watch, peers = self.settings, Stopwatch(features.x.device), features.peers
        chosen = JaccardSettings(
            settings.eps, settings.min_samples, settings.k1, settings.k2, settings.max_pairs or None
        )
        try:
            with watch.stage("jaccard"):
                graph = jaccard_rows(features, chosen, chosen.eps, copies=chosen.min_samples)
        except TooManyPairs as error:
            raise NoLabels(str(error), COLLAPSE_REMEDY if "collapsed" in str(error) else "lower --eps") from error
        with watch.stage("dbscan"):
            labels = label_rows(features, graph, chosen.eps, chosen.min_samples).labels
        with watch.stage("centroids"):
            centroids = shared_centroids(features, labels)
        return PseudoLabels(peers.gather(labels, features.counts), centroids, seconds=watch.seconds)

    def _graph(self, features: Tensor, eps: float, watch: Stopwatch) -> tuple[CSRGraph, Tensor | None]:
        """Distances up to eps, and for every row the one whose label it takes (None: its own)."""
        settings, most = self.settings, self.settings.max_pairs or None
        try:
            with watch.stage(settings.distance):
                if settings.distance != "jaccard":
                    return plain_graph(features, eps, settings.distance, most), None
                return distinct_jaccard_graph(
                    features, settings.k1, settings.k2, eps=eps, min_samples=settings.min_samples, max_pairs=most
                )
        except TooManyPairs as error:
            collapsed = "collapsed" in str(error)
            raise NoLabels(str(error), COLLAPSE_REMEDY if collapsed else self.advice(features)) from error

    def advice(self, features: Tensor) -> str:
        settings = self.settings
        if settings.distance != "jaccard":
            return str(advise_radius(features, settings.distance, settings.min_samples))
        return str(advise_eps(features, settings.k1, settings.k2, settings.min_samples))

    def check(self, images: int) -> None:
        if self.settings.distance == "jaccard":
            check_at_most("k1", self.settings.k1, images)
        check_at_most("min_samples", self.settings.min_samples, images)


def check_at_most(name: str, value: int, images: int) -> None:
    """A count that there must be images for.

    Raises:
        ValueError: if there are fewer.
    """
    if value > images:
        what = f"expected at most the number of training images, {images}, got {value}"
        raise ValueError(f"--{name.replace('_', '-')}: {what}")


DBSCAN = LabelSource(settings=DBSCANSettings, make=lambda settings, seed: DBSCANLabels(settings))
