"""CAP: a proxy for every camera of a cluster; contrast within the camera, then with the proxies of all cameras."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ise_fast import ops
from ise_fast.methods.interface import Memory, Method, Objective, flag
from ise_fast.methods.records import Batch, LossOutput, PseudoLabels
from ise_fast.nn import ProxyMemory


@dataclass(frozen=True)
class CAPSettings:
    """CAP (camera-aware proxies)."""

    temp: float = flag(0.07, "temperature of the contrastive loss")
    momentum: float = flag(0.2, "momentum of the memory")
    cross_weight: float = flag(0.5, "CAP: weight of the loss across cameras")
    cross_epoch: int = flag(5, "CAP: epochs before the loss across cameras begins")
    hard_negatives: int = flag(50, "CAP: most similar proxies of other clusters in the loss across cameras; 0: all")


class Proxies(ProxyMemory, Memory):
    """`ise_fast.nn.ProxyMemory` as the memory of a method."""

    def begin(self, features: Tensor, pseudo: PseudoLabels, cams: Tensor | None) -> None:
        assert cams is not None  # the method needs them
        self.reset(features, pseudo.labels.to(features.device), cams)

    def follow(self, features: Tensor, batch: Batch, output: LossOutput) -> None:
        self.update(features, self.own_of(batch))

    @property
    def classes(self) -> Tensor:
        return self.proxies

    def own_of(self, batch: Batch) -> Tensor:
        """[B] the proxy of each image."""
        assert batch.cams is not None
        return self.own(batch.labels, batch.cams)


class CAPObjective(Objective[Proxies]):
    parts = ("intra", "inter")
    capture_obstacle = "the loss counts the cameras of a batch on the host"

    def __init__(self, settings: CAPSettings) -> None:
        self.settings = settings
        self.temperature = settings.temp

    def __call__(self, features: Tensor, batch: Batch, memory: Proxies, progress: float) -> LossOutput:
        assert batch.cams is not None
        share = camera_shares(batch.cams)
        intra = ops.soft_nce_loss(
            features, memory.proxies, memory.own_of(batch)[:, None], share[:, None], self.settings.temp,
            ranges=memory.camera_ranges(batch.cams),
        )  # fmt: skip
        inter = cross_camera_loss(features, batch, memory, share, self.settings)
        return LossOutput(intra + self.settings.cross_weight * inter, (intra, inter))


def camera_shares(cams: Tensor) -> Tensor:
    """[B] weights that make the mean over a batch the sum over its cameras of the mean over a camera's rows."""
    _, camera, counts = torch.unique(cams, return_inverse=True, return_counts=True)
    shares: Tensor = len(cams) / counts[camera].float()
    return shares


def cross_camera_loss(features: Tensor, batch: Batch, memory: Proxies, share: Tensor, settings: CAPSettings) -> Tensor:
    """Contrast of the proxies of a cluster, all cameras alike, with the hardest of other clusters; 0 before its epoch.

    Args:
        features: [B, d] unit rows.
        batch: their labels.
        memory: proxies.
        share: [B] weights of the rows.
        settings: of the method.
    """
    if batch.epoch < settings.cross_epoch:
        return features.new_zeros(())
    columns = memory.of_clusters(batch.labels)
    weights = share[:, None] * (columns >= 0) / (columns >= 0).sum(1, keepdim=True)
    return ops.soft_nce_loss(
        features, memory.proxies, columns, weights, settings.temp, negatives=settings.hard_negatives
    )


def proxy_groups(labels: Tensor, cams: Tensor | None) -> Tensor:
    """[N] the proxy of each image, -1 for noise: what batches are balanced over, numbered as in `ProxyMemory`."""
    assert cams is not None
    groups, kept = torch.full_like(labels, -1), labels >= 0
    names = cams[kept] * (labels.max() + 1) + labels[kept]
    groups[kept] = torch.unique(names, return_inverse=True)[1]
    return groups


CAP = Method(
    title="CAP",
    source="Wang et al., Camera-aware Proxies for Unsupervised Person Re-Identification, AAAI 2021",
    settings=CAPSettings,
    memory=lambda settings, width: Proxies(width, settings.momentum),
    objective=CAPObjective,
    groups=proxy_groups,
    needs_cameras=True,
)
