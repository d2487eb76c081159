"""The two losses of PPLR: parts of an image correct the label of the whole, which says how far to trust them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax, nll_loss, softmax

from ise_fast import ops
from ise_fast.methods.centroids import Centroids, cluster_centroids
from ise_fast.methods.cluster_contrast import ContrastSettings
from ise_fast.methods.interface import Method, Objective, flag
from ise_fast.methods.records import Batch, LossOutput, PseudoLabels
from ise_fast.nn._buffers import take_lengths


@dataclass(frozen=True)
class PPLRSettings(ContrastSettings):
    """PPLR (part-based pseudo label refinement), its two losses."""

    agreement_neighbours: int = flag(20, "PPLR: neighbours whose lists say how far a part agrees with the whole image")
    own_label: float = flag(0.5, "PPLR: share of the pseudo label in the target; the parts' predictions have the rest")
    refine_epoch: int = flag(5, "PPLR: first epoch, from 0, with refined targets; before, labels are smoothed by 0.1")


class PartCentroids(Centroids):
    """A centroid a cluster for the whole image and for each part, and how far the parts of each image agree."""

    parts: Tensor  # [P, K, d]
    agreement: Tensor  # [N, P] float32 in [0, 1]

    def __init__(self, settings: PPLRSettings, width: int) -> None:
        super().__init__(width, settings.momentum, settings.memory_mode)
        self.neighbours = settings.agreement_neighbours
        self.register_buffer("parts", torch.empty(0, 0, width))
        self.register_buffer("agreement", torch.empty(0, 0))

    def begin(self, features: Tensor, pseudo: PseudoLabels, cams: Tensor | None) -> None:
        super().begin(features, pseudo, cams)
        assert pseudo.parts is not None  # the trainer has them for a method that needs parts
        labels, parts = pseudo.labels.to(features.device), pseudo.parts.unbind(1)
        self.parts = torch.stack([cluster_centroids(part, labels) for part in parts])
        self.agreement = part_agreement(features, pseudo.parts, self.neighbours)

    def follow(self, features: Tensor, batch: Batch, output: LossOutput) -> None:
        super().follow(features, batch, output)
        assert batch.parts is not None
        for table, part in zip(self.parts, batch.parts.unbind(1), strict=True):
            ops.update_memory_(table, part.contiguous(), batch.labels, self.momentum, "momentum")

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        take_lengths(self, state_dict, prefix, "parts", "agreement", any_shape=True)
        super()._load_from_state_dict(state_dict, prefix, *args)


class PPLRObjective(Objective[PartCentroids]):
    parts = ("whole", "by_parts")
    mixes = False  # features of parts are not mixed along
    capture_obstacle = None

    def __init__(self, settings: PPLRSettings) -> None:
        self.settings = settings

    def __call__(self, features: Tensor, batch: Batch, memory: PartCentroids, progress: float) -> LossOutput:
        assert batch.parts is not None
        tau, parts = self.settings.temp, [part.contiguous() for part in batch.parts.unbind(1)]
        rows, tables = [features, *parts], [memory.centroids, *memory.parts]
        if batch.epoch < self.settings.refine_epoch:
            own = batch.labels[:, None]
            ones = torch.ones(own.shape, device=features.device)
            whole, *each = (
                ops.soft_nce_loss(row, table, own, ones, tau, smooth=0.1)
                for row, table in zip(rows, tables, strict=True)
            )
        else:
            # Every class is a target, and the parts' logits serve two losses: they are kept, [B, K] for each part.
            agreement = memory.agreement[batch.images]
            whole_logits, *logits = (row @ table.T / tau for row, table in zip(rows, tables, strict=True))
            chances = [log_softmax(z, dim=1) for z in logits]
            with torch.no_grad():
                by_part = [chance.exp() for chance in chances]
                targets = refined_targets(by_part, agreement, batch.labels, self.settings.own_label)
            whole = cross_entropy(whole_logits, targets)
            each = [smoothed(z, batch.labels, 1 - a) for z, a in zip(chances, agreement.unbind(1), strict=True)]
        by_parts = torch.stack(each).mean()
        return LossOutput(whole + by_parts, (whole.detach(), by_parts.detach()))

    def check(self, images: int) -> None:
        if self.settings.agreement_neighbours >= images:
            raise ValueError(
                f"--agreement-neighbours: expected fewer than the training images, {images}, got "
                f"{self.settings.agreement_neighbours}"
            )


def smoothed(chances: Tensor, labels: Tensor, smooth: Tensor) -> Tensor:
    """Cross entropy with the labels, of which each image gives away a share of its own to all classes alike.

    Args:
        chances: [B, K] log softmax of the logits.
        labels: [B] int64.
        smooth: [B] in [0, 1].
    """
    own = nll_loss(chances, labels, reduction="none")
    loss: Tensor = ((1 - smooth) * own - smooth * chances.mean(1)).mean()
    return loss


def refined_targets(chances: Sequence[Tensor], agreement: Tensor, labels: Tensor, own: float) -> Tensor:
    """own onehot(y) + (1 - own) sum over parts of softmax_p(agreement) chances_p.

    Args:
        chances: P times [B, K], the softmax of a part's logits.
        agreement: [B, P].
        labels: [B] int64.
        own: share of the label.

    Returns:
        [B, K], rows sum to 1.
    """
    targets = torch.zeros_like(chances[0]).scatter_(1, labels[:, None], own)
    for share, chance in zip(((1 - own) * softmax(agreement, dim=1)).unbind(1), chances, strict=True):
        targets.addcmul_(share[:, None], chance)
    return targets


def part_agreement(features: Tensor, parts: Tensor, neighbours: int) -> Tensor:
    """Intersection over union of the nearest images by the whole and by each part, the image itself left out.

    Args:
        features: [N, d] unit rows.
        parts: [N, P, d] unit rows.
        neighbours: how many images a list has, less than N.

    Returns:
        [N, P] float32.
    """

    def nearest(rows: Tensor) -> Tensor:
        found = ops.knn(rows, neighbours + 1).indices
        own = found == torch.arange(len(rows), device=rows.device)[:, None]
        own[:, -1] |= ~own.any(1)  # among copies of it: the last one makes room
        return found[~own].view(len(rows), neighbours)

    whole = nearest(features)
    shared = []
    for part in parts.unbind(1):
        mine = nearest(part.contiguous())
        shared.append((whole[:, :, None] == mine[:, None, :]).any(2).sum(1))
    common = torch.stack(shared, dim=1).float()
    return common / (2 * neighbours - common)


PPLR = Method(
    title="PPLR",
    source="Cho et al., Part-based Pseudo Label Refinement for Unsupervised Person Re-identification, CVPR 2022",
    settings=PPLRSettings,
    memory=PartCentroids,
    objective=PPLRObjective,
    parts=3,
)
