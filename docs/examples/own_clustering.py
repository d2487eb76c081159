"""Pseudo labels by a clustering of your own: here scikit-learn's agglomerative one."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch
from sklearn.cluster import AgglomerativeClustering
from torch import Tensor

from ise_fast.methods import Labeller, LabelSource, PseudoLabels, flag, register_labels
from ise_fast.train import main


@dataclass(frozen=True)
class Settings:
    """Labels by agglomeration."""  # the heading of its flags in --help

    groups: int = flag(60, "clusters to make")  # becomes --groups


class Agglomeration(Labeller):
    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def __call__(self, features: Tensor, cams: Tensor | None, epoch: int) -> PseudoLabels:
        tree = AgglomerativeClustering(n_clusters=self.settings.groups, metric="cosine", linkage="average")
        labels = torch.from_numpy(tree.fit_predict(features.cpu().numpy()))
        large = labels.bincount() >= 4  # images of smaller clusters are not drawn
        return PseudoLabels(torch.where(large, large.cumsum(0) - 1, -1)[labels])

    def advice(self, features: Tensor) -> str:
        return "raise --groups"


LABELS = LabelSource(settings=Settings, make=lambda settings, seed: Agglomeration(settings))

if __name__ == "__main__":
    register_labels("agglomeration", LABELS)  # or, without this file's last lines: --labels own_clustering:LABELS
    words = "--labels agglomeration --groups 70 --epochs 1 --iters 3 --eval-step 0 --no-report"
    sys.exit(main([*words.split(), *sys.argv[1:]]))
