"""SoftSim (softened similarity): no clusters; an image's target is itself and, a little, the images most like it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ise_fast import ops
from ise_fast.methods.interface import Memory, Method, Objective, flag
from ise_fast.methods.records import Batch, LossOutput, PseudoLabels
from ise_fast.nn import InstanceMemory
from ise_fast.nn._buffers import take_lengths


@dataclass(frozen=True)
class SoftSimSettings:
    """SoftSim (softened similarity learning)."""

    temp: float = flag(0.1, "temperature of the contrastive loss")
    momentum: float = flag(0.5, "momentum of the memory")
    own_share: float = flag(0.6, "SoftSim: share of the target that an image has itself")


class SoftMemory(InstanceMemory, Memory):
    """`ise_fast.nn.InstanceMemory` made anew from the features behind the labels, with the similar images of each."""

    similar: Tensor  # [N, k] int64, or [N, 0] where every image is its own only target

    def __init__(self, num_features: int, momentum: float) -> None:
        super().__init__(num_features, momentum)
        self.register_buffer("similar", torch.empty(0, 0, dtype=torch.int64))

    def begin(self, features: Tensor, pseudo: PseudoLabels, cams: Tensor | None) -> None:
        self.reset(features)
        similar = pseudo.labels.new_empty(len(features), 0) if pseudo.similar is None else pseudo.similar
        self.similar = similar.to(features.device)

    @property
    def capture_obstacle(self) -> None:
        return None

    def follow(self, features: Tensor, batch: Batch, output: LossOutput) -> None:
        self.update(features, batch.images)

    @property
    def classes(self) -> Tensor:
        return self.table

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        take_lengths(self, state_dict, prefix, "similar", any_shape=True)
        super()._load_from_state_dict(state_dict, prefix, *args)


class SoftSimObjective(Objective[SoftMemory]):
    capture_obstacle = None

    def __init__(self, settings: SoftSimSettings) -> None:
        self.temp = self.temperature = settings.temp
        self.own_share = settings.own_share

    def __call__(self, features: Tensor, batch: Batch, memory: SoftMemory, progress: float) -> LossOutput:
        return LossOutput(ops.soft_nce_loss(features, memory.table, *self.targets(batch, memory), self.temp))

    def targets(self, batch: Batch, memory: SoftMemory) -> tuple[Tensor, Tensor]:
        similar = memory.similar[batch.images]
        columns = torch.cat([batch.images[:, None], similar], dim=1)
        weights = torch.ones(columns.shape, device=columns.device)
        if similar.shape[1]:
            weights[:, 0] = self.own_share
            weights[:, 1:] = (1 - self.own_share) / similar.shape[1]
        return columns, weights


SOFTSIM = Method(
    title="SoftSim",
    source="Lin et al., Unsupervised Person Re-identification via Softened Similarity Learning, CVPR 2020",
    settings=SoftSimSettings,
    memory=lambda settings, width: SoftMemory(width, settings.momentum),
    objective=SoftSimObjective,
    labels="similar",
    fixed_labels=True,
    sampler="shuffle",
)
