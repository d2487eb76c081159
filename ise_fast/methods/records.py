"""What labellers, memories and objectives hand to each other: pseudo labels, a batch, a loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class PseudoLabels:
    """The labels of an epoch. The first process makes them, all get them."""

    labels: Tensor  # [N] int64, clusters from 0 on; -1: not drawn
    centroids: Tensor | None = None  # [K, d] float32 unit rows; None: the memory makes its own
    groups: Tensor | None = None  # [N] int64, what batches are balanced over, -1: not drawn; None: the labels
    figures: dict[str, float] = field(default_factory=dict)  # for the epoch's record, named in `Labeller.figures`
    seconds: dict[str, float] = field(default_factory=dict)  # by stage
    similar: Tensor | None = None  # [N, k] int64: images that are further targets of each image
    parts: Tensor | None = None  # [N, P, d] float32 unit rows: added by the trainer for a method that needs parts

    @property
    def sizes(self) -> Tensor:
        """[K] int64: images in each cluster."""
        return torch.bincount(self.labels[self.labels >= 0])

    @property
    def drawn(self) -> Tensor:
        """[N] int64: what batches are balanced over."""
        return self.labels if self.groups is None else self.groups

    @property
    def clusters(self) -> int:
        return self.sizes.numel()

    def summary(self, *, singles_apart: bool = False) -> dict[str, int]:
        """Clusters, outliers and sizes for the epoch's record.

        Args:
            singles_apart: an image that is alone in its cluster counts as an outlier.
        """
        sizes, outliers = self.sizes, int((self.labels < 0).sum())
        if singles_apart:
            outliers, sizes = outliers + int((sizes == 1).sum()), sizes[sizes > 1]
        largest, smallest = (int(sizes.max()), int(sizes.min())) if sizes.numel() else (0, 0)
        return {"clusters": sizes.numel(), "outliers": outliers, "largest": largest, "smallest": smallest}

    def cpu(self) -> PseudoLabels:
        """The same with tensors on the CPU: they travel between processes and into checkpoints."""
        parts = (self.centroids, self.groups, self.similar)
        centroids, groups, similar = (None if part is None else part.cpu() for part in parts)
        return replace(self, labels=self.labels.cpu(), centroids=centroids, groups=groups, similar=similar)


class NoLabels(ValueError):
    """A labeller found nothing that can be trained on.

    Args:
        found: what was found.
        advice: what to do about it.
    """

    def __init__(self, found: str, advice: str) -> None:
        super().__init__(found)
        self.advice = advice


class Mix(NamedTuple):
    """Every image of a batch, or its feature, is a mixture with another one of the batch."""

    partner: Tensor  # [B] int64, a permutation of the batch's rows
    share: float  # of the image itself; its partner has the rest
    features: bool = False  # features are mixed, and the images are as they are


class Batch(NamedTuple):
    """A batch of all processes together, in rank order."""

    images: Tensor  # [B] int64, rows of the training set
    labels: Tensor  # [B] int64, pseudo labels
    cams: Tensor | None  # [B] int64; None: not known
    epoch: int = 0  # of the run, from 0
    mix: Mix | None = None
    seed: int = 0  # for what is drawn in the loss: follows from the run's seed, the epoch and the iteration
    parts: Tensor | None = None  # [B, P, d] float32 unit rows, with gradient in the objective
    drawn: tuple[Tensor, ...] = ()  # in a recorded step: `Objective.drawn` on the device, to be used in its place

    def each(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """The same with `function` of every tensor that has a row an image."""
        mix = None if self.mix is None else self.mix._replace(partner=function(self.mix.partner))
        cams = None if self.cams is None else function(self.cams)
        return self._replace(images=function(self.images), labels=function(self.labels), cams=cams, mix=mix)


class LossOutput(NamedTuple):
    """The loss of a batch."""

    loss: Tensor  # scalar; its gradient trains the network
    parts: tuple[Tensor, ...] = ()  # scalars, as named in `Objective.parts`
    supports: Tensor | None = None  # [B, k, d] further rows for the memory
    rows: Tensor | None = None  # [B, d] what the memory follows, where it is not the features


class Need(NamedTuple):
    """How many clusters something needs, for what, and what to do where there are fewer."""

    clusters: int
    purpose: str
    remedy: str
