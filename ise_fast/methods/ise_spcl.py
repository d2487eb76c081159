"""ISE on SpCL's memory: supports between the mean directions of groups of a memory of all images. Ours, a trial."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor
from torch.nn.functional import normalize

from ise_fast.methods.interface import Method, Objective
from ise_fast.methods.ise import ISEObjective, ISESettings
from ise_fast.methods.records import Batch, LossOutput
from ise_fast.methods.spcl import HybridMemory


@dataclass(frozen=True)
class ISESpCLSettings(ISESettings):
    """ISE on SpCL's memory."""


class Centres(NamedTuple):
    """Unit rows in the place of a memory's centroids."""

    centroids: Tensor
    gram: Tensor | None = None  # they change with every batch: not worth keeping


class ISEOnGroups(Objective[HybridMemory]):
    """The ISE loss against unit means of groups. The memory has no row for a support, so that images alone move it."""

    parts, figures, capture_obstacle = ISEObjective.parts, ISEObjective.figures, None

    def __init__(self, settings: ISESettings) -> None:
        ise = ISEObjective(settings)
        self.loss, self.need, self.temperature = ise.loss, ise.need, ise.temperature
        self.figures_at, self.check = ise.figures_at, ise.check  # type: ignore[method-assign]
        self.drawn = ise.drawn  # type: ignore[method-assign]

    def __call__(self, features: Tensor, batch: Batch, memory: HybridMemory, progress: float) -> LossOutput:
        output = self.loss(features, batch.labels, Centres(normalize(memory.sums, dim=1)), progress, *batch.drawn)
        return LossOutput(output.loss, (output.contrastive, output.label_preserving))


def hybrid(settings: Any, width: int) -> HybridMemory:
    """The memory of the settings."""
    return HybridMemory(width, settings.momentum)


ISE_SPCL = Method(
    title="ISE on SpCL's memory",
    source="ours: Zhang et al., CVPR 2022, on Ge et al., NeurIPS 2020",
    settings=ISESpCLSettings,
    memory=hybrid,
    objective=ISEOnGroups,
    labels="self-paced",
    sampler="pk-singles",
)
