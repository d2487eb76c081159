"""Cluster Contrast: InfoNCE against one centroid a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ise_fast.methods.centroids import Centroids
from ise_fast.methods.interface import Method, Objective, flag
from ise_fast.methods.records import Batch, LossOutput
from ise_fast.nn import ClusterNCELoss


@dataclass(frozen=True)
class ContrastSettings:
    """Contrastive loss and memory."""

    temp: float = flag(0.05, "temperature of the contrastive loss")
    momentum: float = flag(0.2, "momentum of the memory")
    memory_mode: Literal["hard", "momentum", "kalman"] = flag(
        "hard", "update of centroids: hardest row of a cluster, every row, or a Kalman filter (experimental, ours)"
    )


class ContrastObjective(Objective[Centroids]):
    capture_obstacle = None

    def __init__(self, settings: ContrastSettings) -> None:
        self.temperature = settings.temp
        self.loss = ClusterNCELoss(settings.temp)

    def __call__(self, features: Tensor, batch: Batch, memory: Centroids, progress: float) -> LossOutput:
        return LossOutput(self.loss(features, batch.labels, memory))

    def targets(self, batch: Batch, memory: Centroids) -> tuple[Tensor, Tensor]:
        own = batch.labels[:, None]
        return own, torch.ones(own.shape, device=own.device)


def centroids(settings: ContrastSettings, width: int) -> Centroids:
    """The memory of the settings."""
    return Centroids(width, settings.momentum, settings.memory_mode)


CLUSTER_CONTRAST = Method(
    title="Cluster Contrast",
    source="Dai et al., Cluster Contrast for Unsupervised Person Re-Identification, 2021",
    settings=ContrastSettings,
    memory=centroids,
    objective=ContrastObjective,
)
