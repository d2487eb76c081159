"""ISE: Cluster Contrast with support samples between the clusters, and a label-preserving loss on them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ise_fast import ops
from ise_fast.methods.centroids import Centroids
from ise_fast.methods.cluster_contrast import ContrastSettings, centroids
from ise_fast.methods.interface import Method, Objective, flag
from ise_fast.methods.records import Batch, LossOutput, Need
from ise_fast.nn import ISELoss


@dataclass(frozen=True)
class ISESettings(ContrastSettings):
    """ISE (implicit sample extension)."""

    supports: int = flag(1, "support samples per feature (k)")
    base_degree: float = flag(0.25, "largest interpolation degree, reached at the last epoch")
    lp_temp: float = flag(0.6, "temperature of the label-preserving loss")
    lp_weight: float = flag(0.1, "weight of the label-preserving loss; 0: it is left out")
    contrast_supports: bool = flag(
        True, "supports enter the contrastive loss and the memory; without: the label-preserving loss alone (ablation)"
    )


class ISEObjective(Objective[Centroids]):
    parts = ("contrastive", "label_preserving")
    figures = ("degree",)
    capture_obstacle = None

    def __init__(self, settings: ISESettings) -> None:
        self.temperature = settings.temp
        self.loss = ISELoss(
            settings.supports,
            settings.base_degree,
            settings.temp,
            settings.lp_temp,
            settings.lp_weight,
            settings.contrast_supports,
        )
        k = settings.supports
        self.need = Need(k + 1, f"for --supports {k}", "lower --supports")

    def __call__(self, features: Tensor, batch: Batch, memory: Centroids, progress: float) -> LossOutput:
        output = self.loss(features, batch.labels, memory, progress, *batch.drawn)
        return LossOutput(output.loss, (output.contrastive, output.label_preserving), output.supports)

    def drawn(self, features: Tensor, batch: Batch, progress: float) -> tuple[Tensor, ...]:
        """The degree."""
        return (torch.tensor(ops.interpolation_degree(progress, self.loss.base_degree), dtype=torch.float64),)

    def figures_at(self, progress: float) -> dict[str, float]:
        return {"degree": ops.interpolation_degree(progress, self.loss.base_degree)}

    def check(self, images: int) -> None:
        if self.loss.k >= images:
            raise ValueError(
                f"--supports: expected fewer than the training images, {images}, since each is of another cluster, got "
                f"{self.loss.k}"
            )


ISE = Method(
    title="ISE",
    source="Zhang et al., Implicit Sample Extension for Unsupervised Person Re-Identification, CVPR 2022",
    settings=ISESettings,
    memory=centroids,
    objective=ISEObjective,
)
