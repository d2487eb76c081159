"""ISE on CAP's proxies: supports between the proxies of one camera; across cameras as CAP. Ours, a trial."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from ise_fast import ops
from ise_fast.methods.cap import CAPSettings, Proxies, camera_shares, cross_camera_loss, proxy_groups
from ise_fast.methods.interface import Method, Objective
from ise_fast.methods.ise import ISEObjective, ISESettings
from ise_fast.methods.records import Batch, LossOutput


@dataclass(frozen=True)
class ISECAPSettings(CAPSettings, ISESettings):
    """ISE on CAP's proxies."""


class Centres(NamedTuple):
    """Unit rows in the place of a memory's centroids."""

    centroids: Tensor
    gram: Tensor | None = None  # they change with every batch: not worth keeping


class ISEOnProxies(Objective[Proxies]):
    """Within each camera the ISE loss in place of CAP's; a camera of too few proxies for supports goes without.

    Supports stay within the camera, since the proxies of the own cluster in other cameras are no other clusters. They
    do not move the proxies.
    """

    parts = ("intra", "inter", "label_preserving")
    figures = ISEObjective.figures
    capture_obstacle = "the loss goes from camera to camera on the host"

    def __init__(self, settings: ISECAPSettings) -> None:
        ise = ISEObjective(settings)
        self.settings, self.loss, self.temperature = settings, ise.loss, ise.temperature
        self.figures_at = ise.figures_at  # type: ignore[method-assign]

    def __call__(self, features: Tensor, batch: Batch, memory: Proxies, progress: float) -> LossOutput:
        assert batch.cams is not None
        own, ranges = memory.own_of(batch), memory.camera_ranges(batch.cams)
        intra, preserving = features.new_zeros(()), features.new_zeros(())
        for start, end in ranges.unique(dim=0).tolist():
            rows = (ranges[:, 0] == start).nonzero()[:, 0]
            proxies, labels = memory.proxies[start:end], own[rows] - start
            if end - start > self.loss.k:
                output = self.loss(features[rows], labels, Centres(proxies), progress)
                intra, preserving = intra + output.contrastive, preserving + output.label_preserving
            else:
                intra = intra + ops.cluster_nce_loss(features[rows], labels, proxies, self.settings.temp)
        inter = cross_camera_loss(features, batch, memory, camera_shares(batch.cams), self.settings)
        loss = intra + self.settings.lp_weight * preserving + self.settings.cross_weight * inter
        return LossOutput(loss, (intra, inter, preserving))


ISE_CAP = Method(
    title="ISE on CAP's proxies",
    source="ours: Zhang et al., CVPR 2022, on Wang et al., AAAI 2021",
    settings=ISECAPSettings,
    memory=lambda settings, width: Proxies(width, settings.momentum),
    objective=ISEOnProxies,
    groups=proxy_groups,
    needs_cameras=True,
)
