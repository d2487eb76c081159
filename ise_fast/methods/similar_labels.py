"""Softened labels (`--labels similar`): every image is a class, and the images most like it are targets beside it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ise_fast import ops
from ise_fast._stopwatch import Stopwatch
from ise_fast.methods.interface import Labeller, LabelSource, flag
from ise_fast.methods.records import PseudoLabels


@dataclass(frozen=True)
class SimilarSettings:
    """Softened labels."""

    similar: int = flag(8, "similar images that are targets beside the image itself")
    camera_penalty: float = flag(0.02, "added to the distance of two images of one camera, where cameras are known")
    hard_epochs: int = flag(20, "first epochs, in which every image is its own only target")


class SimilarLabels(Labeller):
    """The nearest other images by Euclidean distance plus a penalty on the same camera, from `hard_epochs` on."""

    figures = ("dissimilarity",)

    def __init__(self, settings: SimilarSettings) -> None:
        self.settings = settings

    def due(self, epoch: int) -> bool:
        return epoch == 0 or epoch >= self.settings.hard_epochs

    def __call__(self, features: Tensor, cams: Tensor | None, epoch: int) -> PseudoLabels:
        settings, watch = self.settings, Stopwatch(features.device)
        labels = torch.arange(len(features))
        if epoch < settings.hard_epochs:
            return PseudoLabels(labels)
        with watch.stage("similar"):
            rows, distances = similar_images(features, cams, settings.similar, settings.camera_penalty)
        figures = {"dissimilarity": float(distances.mean())}
        return PseudoLabels(labels, similar=rows, figures=figures, seconds=watch.seconds)

    def check(self, images: int) -> None:
        if self.settings.similar >= images:
            raise ValueError(
                f"--similar: expected fewer than the training images, {images}, got {self.settings.similar}"
            )


def similar_images(x: Tensor, cams: Tensor | None, count: int, penalty: float) -> tuple[Tensor, Tensor]:
    """The other rows smallest by D(i, j) = |x_i - x_j| + penalty [camera i = camera j], ties by row.

    No N x N matrix: the nearest rows are ordered anew, and where one beyond them could still come in, more are asked
    for. None can once D of the last one taken is below the distance of the last one seen.

    Args:
        x: [N, d] float32.
        cams: [N] int64, or None for no penalty.
        count: how many, less than N.
        penalty: >= 0.

    Returns:
        [N, count] int64 rows by rising D, and [N, count] float64 D.
    """
    rows, found = (torch.empty(len(x), count, dtype=kind, device=x.device) for kind in (torch.int64, torch.float64))
    asked, width = torch.arange(len(x), device=x.device), min(len(x), 2 * count + 2)
    while len(asked):
        near = ops.knn(x, width, y=None if len(asked) == len(x) else x[asked], metric="euclidean")
        distances, order = near.distances.double(), near.indices.argsort(dim=1)
        indices, dissimilarity = near.indices.gather(1, order), distances.gather(1, order)
        if cams is not None:
            dissimilarity = dissimilarity + penalty * (cams[indices] == cams[asked][:, None])
        dissimilarity = dissimilarity.masked_fill(indices == asked[:, None], torch.inf)
        first = dissimilarity.argsort(dim=1, stable=True)[:, :count]
        rows[asked], found[asked] = indices.gather(1, first), dissimilarity.gather(1, first)
        if width == len(x):
            break
        asked = asked[found[asked, -1] >= distances[:, -1]]
        width = min(len(x), 2 * width)
    return rows, found


SIMILAR = LabelSource(settings=SimilarSettings, make=lambda settings, seed: SimilarLabels(settings))
