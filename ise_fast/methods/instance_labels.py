"""No clustering (`--labels instances`): every image is a class of its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ise_fast.methods.interface import Labeller, LabelSource
from ise_fast.methods.records import PseudoLabels


@dataclass(frozen=True)
class InstanceSettings:
    """Every image a class."""


class InstanceLabels(Labeller):
    """The images' own numbers, whatever their features are."""

    def __call__(self, features: Tensor, cams: Tensor | None, epoch: int) -> PseudoLabels:
        return PseudoLabels(torch.arange(len(features)))


INSTANCES = LabelSource(settings=InstanceSettings, make=lambda settings, seed: InstanceLabels())
