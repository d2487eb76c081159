"""ISE on SpCL's memory: supports between the mean directions of groups of a memory of all images. Ours, a trial."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ise_fast.methods.interface import Method, Objective
from ise_fast.methods.ise import ISEObjective, ISESettings
from ise_fast.methods.records import Batch, LossOutput, PseudoLabels
from ise_fast.methods.spcl import HybridMemory
from ise_fast.nn._buffers import take_lengths
from ise_fast.nn.cluster_memory import GRAM_LIMIT
from ise_fast.ops.memory import _refresh_gram_


@dataclass(frozen=True)
class ISESpCLSettings(ISESettings):
    """ISE on SpCL's memory."""


class DirectedMemory(HybridMemory):
    """SpCL's memory with the unit means of its groups and their Gram matrix, of which a step renews a batch's groups.

    Both are in `state_dict`: made anew from the rows they might differ in their last bits.
    """

    centroids: Tensor  # [K, d]

    def __init__(self, width: int, momentum: float) -> None:
        super().__init__(width, momentum)
        self.register_buffer("centroids", torch.empty(0, width))
        self._gram: Tensor | None = None

    @property
    def gram(self) -> Tensor | None:
        """[K, K] inner products of the unit means, made on first use; None above `GRAM_LIMIT` groups."""
        groups = len(self.centroids)
        if groups > GRAM_LIMIT:
            return None
        if self._gram is None:
            gram = self.centroids.new_empty(groups, groups)
            _refresh_gram_(gram, self.centroids)
            self._gram = gram  # only now: what an interrupt leaves behind must not be taken for it
        return self._gram

    def begin(self, features: Tensor, pseudo: PseudoLabels, cams: Tensor | None) -> None:
        super().begin(features, pseudo, cams)
        self.centroids, self._gram = normalize(self.sums, dim=1), None

    def follow(self, features: Tensor, batch: Batch, output: LossOutput) -> None:
        super().follow(features, batch, output)
        gram, self._gram = self._gram, None  # forgotten should an interrupt come before both agree again
        groups = self.groups[batch.images].clamp(min=0)
        self.centroids[groups] = normalize(self.sums[groups], dim=1)
        if gram is not None:
            _refresh_gram_(gram, self.centroids, groups)
        self._gram = gram

    def get_extra_state(self) -> Tensor | None:
        return self._gram

    def set_extra_state(self, state: Tensor | None) -> None:
        self._gram = None if state is None else state.to(self.centroids.device, copy=True)

    def _apply(self, fn: Any, recurse: bool = True) -> DirectedMemory:
        self._gram = None
        super()._apply(fn, recurse)
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if prefix + "sums" in state_dict:  # saved before there were unit means
            state_dict.setdefault(prefix + "centroids", normalize(state_dict[prefix + "sums"], dim=1))
        state_dict.setdefault(prefix + "_extra_state", None)
        take_lengths(self, state_dict, prefix, "centroids")
        super()._load_from_state_dict(state_dict, prefix, *args)


class ISEOnGroups(Objective[DirectedMemory]):
    """The ISE loss against unit means of groups. The memory has no row for a support, so that images alone move it."""

    parts, figures, capture_obstacle = ISEObjective.parts, ISEObjective.figures, None

    def __init__(self, settings: ISESettings) -> None:
        ise = ISEObjective(settings)
        self.loss, self.need, self.temperature = ise.loss, ise.need, ise.temperature
        self.figures_at, self.check = ise.figures_at, ise.check  # type: ignore[method-assign]
        self.drawn = ise.drawn  # type: ignore[method-assign]

    def __call__(self, features: Tensor, batch: Batch, memory: DirectedMemory, progress: float) -> LossOutput:
        output = self.loss(features, batch.labels, memory, progress, *batch.drawn)
        return LossOutput(output.loss, (output.contrastive, output.label_preserving))


def directed(settings: Any, width: int) -> DirectedMemory:
    """The memory of the settings."""
    return DirectedMemory(width, settings.momentum)


ISE_SPCL = Method(
    title="ISE on SpCL's memory",
    source="ours: Zhang et al., CVPR 2022, on Ge et al., NeurIPS 2020",
    settings=ISESpCLSettings,
    memory=directed,
    objective=ISEOnGroups,
    labels="self-paced",
    sampler="pk-singles",
)
