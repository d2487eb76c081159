"""BUC's pseudo labels (`--labels bottom-up`): every image is a cluster, and now and then the nearest ones merge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ise_fast import ops
from ise_fast._stopwatch import Stopwatch
from ise_fast.methods.interface import Labeller, LabelSource, flag
from ise_fast.methods.records import PseudoLabels


@dataclass(frozen=True)
class BottomUpSettings:
    """Labels by bottom-up merging."""

    merge_share: float = flag(0.05, "clusters that a step merges, as a share of the images")
    size_penalty: float = flag(0.003, "added to the squared distance of two clusters for every image in them")
    first_epochs: int = flag(20, "epochs before the first merging")
    step_epochs: int = flag(2, "epochs between two mergings")


class BottomUpLabels(Labeller):
    """As published, `int(1 / merge_share) - 1` mergings; later labels stay as they are."""

    figures = ("merges", "dissimilarity")
    grows = False

    def __init__(self, settings: BottomUpSettings) -> None:
        self.settings = settings
        self.labels: Tensor | None = None  # [N] of the last step

    def due(self, epoch: int) -> bool:
        late = epoch - self.settings.first_epochs
        if epoch == 0 or late < 0:
            return epoch == 0
        step, rest = divmod(late, self.settings.step_epochs)
        return rest == 0 and step < int(1 / self.settings.merge_share) - 1

    def __call__(self, features: Tensor, cams: Tensor | None, epoch: int) -> PseudoLabels:
        settings, watch = self.settings, Stopwatch(features.device)
        if self.labels is None or epoch < settings.first_epochs:
            self.labels = torch.arange(len(features))
            return PseudoLabels(self.labels)
        with watch.stage("merge"):
            wanted = max(1, int(settings.merge_share * len(features)))
            result = ops.merge_rows(features, self.labels.to(features.device), settings.size_penalty, wanted)
        self.labels = result.labels.cpu()
        figures: dict[str, float] = {"merges": len(result.pairs)}
        if len(result.pairs):
            figures["dissimilarity"] = float(result.dissimilarity[-1])
        return PseudoLabels(self.labels, figures=figures, seconds=watch.seconds)

    def advice(self, features: Tensor) -> str:
        return "too many clusters have merged: lower --merge-share or --epochs"

    def state_dict(self) -> dict[str, Any]:
        return {"labels": self.labels}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.labels = state["labels"]


BOTTOM_UP = LabelSource(settings=BottomUpSettings, make=lambda settings, seed: BottomUpLabels(settings))
