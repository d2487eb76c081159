"""SpCL: a row of the memory for every image, compared with the means of their groups."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ise_fast import ops
from ise_fast.methods.interface import Memory, Method, Objective, flag
from ise_fast.methods.records import Batch, LossOutput, PseudoLabels
from ise_fast.nn import InstanceMemory


@dataclass(frozen=True)
class SpCLSettings:
    """SpCL (self-paced contrastive learning)."""

    temp: float = flag(0.05, "temperature of the contrastive loss")
    momentum: float = flag(0.2, "momentum of the memory")


class HybridMemory(InstanceMemory, Memory):
    """`ise_fast.nn.InstanceMemory` as the memory of a method: its rows live on, their groups are an epoch's labels."""

    def begin(self, features: Tensor, pseudo: PseudoLabels, cams: Tensor | None) -> None:
        if self.rows is None:
            self.reset(features)
        self.regroup(pseudo.labels.to(features.device))

    @property
    def capture_obstacle(self) -> None:
        return None

    def follow(self, features: Tensor, batch: Batch, output: LossOutput) -> None:
        self.update(features, batch.images)

    @property
    def classes(self) -> Tensor:
        """Means of the groups, not normalised."""
        return self.sums / self.counts[:, None]

    @property
    def rows(self) -> Tensor | None:
        return self.table if len(self.table) else None


class SpCLObjective(Objective[HybridMemory]):
    capture_obstacle = None

    def __init__(self, settings: SpCLSettings) -> None:
        self.temp = self.temperature = settings.temp

    def __call__(self, features: Tensor, batch: Batch, memory: HybridMemory, progress: float) -> LossOutput:
        return LossOutput(ops.group_nce_loss(features, memory.sums, memory.counts, batch.labels, self.temp))


SPCL = Method(
    title="SpCL",
    source="Ge et al., Self-paced Contrastive Learning with Hybrid Memory, NeurIPS 2020",
    settings=SpCLSettings,
    memory=lambda settings, width: HybridMemory(width, settings.momentum),
    objective=SpCLObjective,
    labels="self-paced",
    sampler="pk-singles",
)
