"""BUC (bottom-up clustering): a softmax over clusters that merge, on a table that is zero after every merging."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ise_fast import ops
from ise_fast.methods.interface import Memory, Method, Objective, flag
from ise_fast.methods.records import Batch, LossOutput, PseudoLabels
from ise_fast.nn import InstanceMemory


@dataclass(frozen=True)
class BUCSettings:
    """BUC (bottom-up clustering)."""

    temp: float = flag(0.1, "temperature of the contrastive loss")
    momentum: float = flag(0.5, "momentum of the memory")
    dropout: float = flag(0.5, "BUC: share of a feature's numbers that are 0 in the loss and the memory")


class RepelledMemory(InstanceMemory, Memory):
    """A row for each cluster, zero until one of its images comes. (The first published program began with features of
    the wrong clusters instead, which leaked neighbouring identities.)"""

    def begin(self, features: Tensor, pseudo: PseudoLabels, cams: Tensor | None) -> None:
        self.reset(features.new_zeros(pseudo.clusters, self.num_features))

    @property
    def capture_obstacle(self) -> None:
        return None

    def follow(self, features: Tensor, batch: Batch, output: LossOutput) -> None:
        self.update(features if output.rows is None else output.rows, batch.labels)

    @property
    def classes(self) -> Tensor:
        return self.table


class BUCObjective(Objective[RepelledMemory]):
    capture_obstacle = None

    def __init__(self, settings: BUCSettings) -> None:
        self.temp = self.temperature = settings.temp
        self.dropout = settings.dropout

    def __call__(self, features: Tensor, batch: Batch, memory: RepelledMemory, progress: float) -> LossOutput:
        kept, y = batch.drawn or self.drawn(features, batch, progress), batch.labels[:, None]
        f = features * kept[0].to(features.device) / (1 - self.dropout) if kept else features
        loss = ops.soft_nce_loss(f, memory.table, y, torch.ones(y.shape, device=f.device), self.temp)
        return LossOutput(loss, rows=f.detach())

    def drawn(self, features: Tensor, batch: Batch, progress: float) -> tuple[Tensor, ...]:
        """Which numbers dropout keeps, the same on every device and in every process."""
        if self.dropout == 0:
            return ()
        generator = torch.Generator().manual_seed(batch.seed)
        return (torch.rand(features.shape, generator=generator) >= self.dropout,)


BUC = Method(
    title="BUC",
    source="Lin et al., A Bottom-Up Clustering Approach to Unsupervised Person Re-identification, AAAI 2019",
    settings=BUCSettings,
    memory=lambda settings, width: RepelledMemory(width, settings.momentum),
    objective=BUCObjective,
    labels="bottom-up",
    sampler="shuffle",
)
