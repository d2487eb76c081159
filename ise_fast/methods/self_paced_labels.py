"""SpCL's pseudo labels (`--labels self-paced`): clusters that a stricter and a looser DBSCAN confirm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ise_fast import ops
from ise_fast._stopwatch import Stopwatch
from ise_fast.methods.dbscan_labels import DBSCANLabels, DBSCANSettings
from ise_fast.methods.interface import LabelSource, flag
from ise_fast.methods.records import PseudoLabels


@dataclass(frozen=True)
class SelfPacedSettings(DBSCANSettings):
    """Self-paced labels."""

    eps_gap: float = flag(0.02, "how far the radii of the stricter and the looser clustering are from --eps")


class SelfPacedLabels(DBSCANLabels):
    """Three clusterings of one graph; an image that they do not confirm is a class of its own.

    The threshold of independence comes from the first epoch and is kept.
    """

    settings: SelfPacedSettings
    figures = ("threshold",)

    def __init__(self, settings: SelfPacedSettings) -> None:
        super().__init__(settings)
        eps, gap = settings.eps, settings.eps_gap
        most = 1.0 if settings.distance == "jaccard" else 2.0
        if not 0 <= gap <= eps or eps + gap >= most:
            raise ValueError(f"--eps-gap: expected at most --eps = {eps:g} and less than {most:g} - --eps, got {gap:g}")
        self.threshold: float | None = None

    def __call__(self, features: Tensor, cams: Tensor | None, epoch: int) -> PseudoLabels:
        settings, watch = self.settings, Stopwatch(features.device)
        eps, gap = settings.eps, settings.eps_gap
        graph, twin = self._graph(features, eps + gap, watch)
        with watch.stage("dbscan"):
            found = [ops.dbscan(graph, radius, settings.min_samples).labels for radius in (eps - gap, eps, eps + gap)]
            tight, normal, loose = (labels if twin is None else labels[twin] for labels in found)
            result = ops.reliable_labels(tight, normal, loose, self.threshold)
        self.threshold = result.threshold
        return PseudoLabels(result.labels, figures={"threshold": result.threshold}, seconds=watch.seconds)

    @property
    def shares(self) -> bool:
        return False

    def state_dict(self) -> dict[str, Any]:
        return {"threshold": self.threshold}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.threshold = state["threshold"]


SELF_PACED = LabelSource(settings=SelfPacedSettings, make=lambda settings, seed: SelfPacedLabels(settings))
