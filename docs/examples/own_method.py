"""A method of one's own in one file: the nearest other centroid must be further away than the own one, by a margin."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from torch import Tensor

from ise_fast.methods import Batch, Centroids, LossOutput, Method, Need, Objective, flag, register_method
from ise_fast.ops import nearest_centroids
from ise_fast.train import main


@dataclass(frozen=True)
class Settings:
    """Margin method."""  # the heading of its flags in --help

    margin: float = flag(0.3, "how much nearer the own centroid must be")  # becomes --margin
    momentum: float = flag(0.2, "momentum of the memory")  # others have it too: one flag for all


class Margin(Objective[Centroids]):
    parts = ("own", "other")  # columns of the loss log, of the epoch's line and of metrics.jsonl
    need = Need(2, "for a nearest other one", "raise --eps")

    def __init__(self, settings: Settings) -> None:
        self.margin = settings.margin

    def __call__(self, features: Tensor, batch: Batch, memory: Centroids, progress: float) -> LossOutput:
        other = nearest_centroids(features.detach(), memory.centroids, batch.labels).indices[:, 0]
        own, far = ((features * memory.centroids[rows]).sum(1) for rows in (batch.labels, other))
        return LossOutput((self.margin + far - own).relu().mean(), (own.mean(), far.mean()))


METHOD = Method(
    title="Margin",
    source="this file",
    settings=Settings,
    memory=lambda settings, width: Centroids(width, settings.momentum),
    objective=Margin,
)

if __name__ == "__main__":
    register_method("margin", METHOD)  # or, without this file's last lines: --method own_method:METHOD
    words = "--method margin --margin 0.5 --epochs 1 --iters 3 --eval-step 0 --no-report"
    sys.exit(main([*words.split(), *sys.argv[1:]]))
