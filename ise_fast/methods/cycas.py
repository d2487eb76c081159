"""CycAs: people of one frame should find themselves again by way of another frame. No clusters, no memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ise_fast.methods.interface import Memory, Method, Objective, flag
from ise_fast.methods.records import Batch, LossOutput, PseudoLabels
from ise_fast.nn.cycle_association import cycle_losses


@dataclass(frozen=True)
class CycAsSettings:
    """CycAs (cycle association)."""

    cycle_delta: float = flag(0.5, "CycAs: the softmax is sharp where cosines differ by this much")
    cycle_margin: float = flag(0.5, "CycAs: by which people must be nearer to themselves than to others")


class NoMemory(Memory):
    """Frames are compared with each other."""

    @property
    def reads_features(self) -> bool:
        return False

    def begin(self, features: Tensor, pseudo: PseudoLabels, cams: Tensor | None) -> None:
        pass

    def follow(self, features: Tensor, batch: Batch, output: LossOutput) -> None:
        pass


class CycAsObjective(Objective[NoMemory]):
    mixes = False
    capture_obstacle = "the loss counts the people of a frame on the host"

    def __init__(self, settings: CycAsSettings) -> None:
        self.settings = settings

    def __call__(self, features: Tensor, batch: Batch, memory: NoMemory, progress: float) -> LossOutput:
        """The mean over the pairs of frames in the batch, which the sampler puts one after the other."""
        sizes = torch.unique_consecutive(batch.labels, return_counts=True)[1]
        starts, paired = sizes.cumsum(0) - sizes, len(sizes) // 2 * 2  # the last frame may have no room for its partner
        sizes, smaller_first = sizes[:paired].view(-1, 2).sort(dim=1, stable=True)
        starts = starts[:paired].view(-1, 2).gather(1, smaller_first)
        (x, y), (n, m) = (_padded(features, starts, sizes), sizes.unbind(1))
        return LossOutput(cycle_losses(x, y, n, m, self.settings.cycle_delta, self.settings.cycle_margin).mean())


def _padded(features: Tensor, starts: Tensor, sizes: Tensor) -> list[Tensor]:
    """[P, most rows, d] for each column of starts and sizes [P, 2]: rows from there on, the next frame's too."""
    last = len(features) - 1
    return [
        features[(start[:, None] + torch.arange(int(size.max()), device=start.device)).clamp(max=last)]
        for start, size in zip(starts.unbind(1), sizes.unbind(1), strict=True)
    ]


CYCAS = Method(
    title="CycAs",
    source="Wang et al., CycAs: Self-supervised Cycle Association for Learning Re-identifiable Descriptions, ECCV 2020",
    settings=CycAsSettings,
    memory=lambda settings, width: NoMemory(),
    objective=CycAsObjective,
    labels="by-frame",
    fixed_labels=True,
    sampler="frame-pairs",
    needs_frames=True,
)
