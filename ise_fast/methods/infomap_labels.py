"""Pseudo labels by Infomap (`--labels infomap`): communities of the graph of nearest neighbours."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from torch import Tensor

from ise_fast import ops
from ise_fast._stopwatch import Stopwatch
from ise_fast.methods.centroids import cluster_centroids
from ise_fast.methods.dbscan_labels import check_at_most
from ise_fast.methods.interface import Labeller, LabelSource, flag
from ise_fast.methods.records import PseudoLabels


@dataclass(frozen=True)
class InfomapSettings:
    """Labels by Infomap (needs the package infomap)."""

    neighbours: int = flag(15, "Infomap: nearest neighbours that are linked, self included")
    min_similarity: float = flag(0.5, "Infomap: least cosine of a link")
    max_noise: int = flag(4, "Infomap: images of the largest community that is left out")


class InfomapLabels(Labeller):
    """`ise_fast.cluster.Infomap`, with a seed that follows from the run's."""

    figures = ("codelength",)

    def __init__(self, settings: InfomapSettings, seed: int) -> None:
        self.settings = settings
        self.seed = seed % (2**31 - 1) + 1

    def __call__(self, features: Tensor, cams: Tensor | None, epoch: int) -> PseudoLabels:
        from ise_fast.cluster import Infomap  # scikit-learn takes as long to import as torch: only where it is used

        settings, watch = self.settings, Stopwatch(features.device)
        with watch.stage("infomap"):
            found = Infomap(settings.neighbours, settings.min_similarity, settings.max_noise, seed=self.seed)
            labels = found.fit_predict(features)
        with watch.stage("centroids"):
            centroids = cluster_centroids(features, labels)
        return PseudoLabels(labels, centroids, figures={"codelength": found.codelength_}, seconds=watch.seconds)

    def advice(self, features: Tensor) -> str:
        count = min(self.settings.neighbours, len(features))
        furthest = 1 - ops.knn(features, count, metric="cosine").distances[:, -1]
        return (
            f"lower --min-similarity or --max-noise (half of the images have their neighbour {count} at a cosine of at "
            f"most {float(furthest.median()):.2f})"
        )

    def check(self, images: int) -> None:
        check_at_most("neighbours", self.settings.neighbours, images)
        if importlib.util.find_spec("infomap") is None:
            raise ValueError("--labels: infomap needs the package infomap, which is not installed: pip install infomap")


INFOMAP = LabelSource(settings=InfomapSettings, make=InfomapLabels)
