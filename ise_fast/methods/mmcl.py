"""MMCL: every image is a class; images that are neighbours of each other in the memory are positive classes too."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ise_fast import ops
from ise_fast.methods.interface import Memory, Method, Objective, flag
from ise_fast.methods.records import Batch, LossOutput, PseudoLabels
from ise_fast.nn import InstanceMemory
from ise_fast.ops._csr import offsets_of
from ise_fast.types import CSRGraph


@dataclass(frozen=True)
class MMCLSettings:
    """MMCL (memory-based multi-label classification)."""

    momentum: float = flag(0.5, "momentum of the memory")
    momentum_epochs: int = flag(60, "MMCL: epochs in which the momentum of the memory rises from 0")
    single_epochs: int = flag(6, "MMCL: first epochs, in which an image's only positive class is its own")
    similarity: float = flag(0.6, "MMCL: cosine above which an image of the memory may be a positive class")
    candidates: int = flag(10, "MMCL: least number of nearest images that are looked at for positive classes")
    delta: float = flag(5.0, "MMCL: weight of the positive classes")
    hard_share: float = flag(0.01, "MMCL: share of the negative classes, the hardest, that the loss takes")


class ClassMemory(InstanceMemory, Memory):
    """`ise_fast.nn.InstanceMemory` that starts at zero, as published, and is never extracted."""

    def __init__(self, settings: MMCLSettings, width: int) -> None:
        super().__init__(width, 0.0)
        self.last, self.epochs = settings.momentum, settings.momentum_epochs

    def begin(self, features: Tensor, pseudo: PseudoLabels, cams: Tensor | None) -> None:
        if self.rows is None:
            self.reset(torch.zeros_like(features))

    def follow(self, features: Tensor, batch: Batch, output: LossOutput) -> None:
        self.momentum = self.last * min(batch.epoch / self.epochs, 1)
        self.update(features, batch.images)

    @property
    def rows(self) -> Tensor | None:
        return self.table if len(self.table) else None


class MMCLObjective(Objective[ClassMemory]):
    parts = ("positives",)  # of an image, on average
    capture_obstacle = "how many positive classes there are is counted on the host"

    def __init__(self, settings: MMCLSettings) -> None:
        self.settings = settings

    def __call__(self, features: Tensor, batch: Batch, memory: ClassMemory, progress: float) -> LossOutput:
        settings, own = self.settings, batch.images
        if batch.epoch < settings.single_epochs:
            places = torch.arange(len(own) + 1, device=own.device)
            ones = torch.ones(len(own), device=own.device)
            positives = CSRGraph(places, own.int(), ones, (len(own), len(memory.table)))
        else:
            found = ops.cycle_positives(memory.table, own, settings.similarity, settings.candidates)
            positives = with_negatives(found, own, settings.hard_share)
        loss = ops.multi_label_loss(features, memory.table, positives, settings.delta, settings.hard_share)
        return LossOutput(loss, (loss.new_tensor(positives.nnz / len(own)),))

    def check(self, images: int) -> None:
        share = self.settings.hard_share
        if int(share * (images - 1)) < 1:
            raise ValueError(
                f"--hard-share: expected at least 1 / {max(images - 1, 1)}, so that one of the {images - 1} negative "
                f"classes of an image is a hard one, got {share:g}"
            )


def with_negatives(positives: CSRGraph, own: Tensor, share: float) -> CSRGraph:
    """Where so many rows are positive that no hard negative is left, the own one alone is.

    (Published programs take the mean of nothing there, which is NaN: a network that has not learnt to tell images apart
    yet finds them all alike.)

    Args:
        positives: of [B, N].
        own: [B] int64, the row of each image, which is in its positives.
        share: of the negatives that are hard.
    """
    sizes = positives.indptr.diff()
    enough = (share * (positives.shape[1] - sizes).double()).long() >= 1
    row = torch.arange(len(own), device=own.device).repeat_interleave(sizes)
    kept = enough[row] | (positives.indices == own[row])
    sizes = torch.where(enough, sizes, 1)
    return CSRGraph(offsets_of(sizes), positives.indices[kept], positives.values[kept], positives.shape)


MMCL = Method(
    title="MMCL",
    source="Wang & Zhang, Unsupervised Person Re-identification via Multi-label Classification, CVPR 2020",
    settings=MMCLSettings,
    memory=ClassMemory,
    objective=MMCLObjective,
    labels="instances",
    fixed_labels=True,
    sampler="shuffle",
)
