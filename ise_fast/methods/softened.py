"""Any objective on mixed batches (mixup, CutMix, mixed features) and with smoothed labels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ise_fast import ops
from ise_fast.methods.interface import Objective
from ise_fast.methods.records import Batch, LossOutput


class Softened(Objective[Any]):
    """Wraps an objective L.

    Of a mixed batch the loss is share x L(own labels) + (1 - share) x L(the partners'). With smoothing a, it is
    (1 - a) L + a U, U the mean over all classes of -log softmax(f . class / temperature): of a plain contrastive loss
    this is the usual smoothing; others keep what they add to it.

    Args:
        objective: of the method.
        smoothing: a, in [0, 1].

    Raises:
        ValueError: if the method has no classes to smooth over.

    Source: Zhang et al., mixup, ICLR 2018; Yun et al., CutMix, ICCV 2019; Szegedy et al., Rethinking the Inception
    Architecture, CVPR 2016.
    """

    def __init__(self, objective: Objective[Any], smoothing: float = 0.0) -> None:
        if smoothing and objective.temperature is None:
            raise ValueError(
                f"--label-smoothing: expected 0 with this method, which has no softmax over classes, got {smoothing:g}"
            )
        self.objective = objective
        self.smoothing = smoothing
        self.parts = (*objective.parts, "spread") if smoothing else objective.parts
        self.figures, self.need, self.temperature = objective.figures, objective.need, objective.temperature
        self.capture_obstacle, self.drawn = objective.capture_obstacle, objective.drawn  # type: ignore[method-assign]

    def __call__(self, features: Tensor, batch: Batch, memory: Any, progress: float) -> LossOutput:
        mix, own = batch.mix, batch._replace(mix=None)
        if mix is None:
            output = self.objective(features, own, memory, progress)
        else:
            if mix.features:
                features = normalize(mix.share * features + (1 - mix.share) * features[mix.partner], dim=1)
            other = own.each(lambda rows: rows[mix.partner])
            first, second = (self.objective(features, labelled, memory, progress) for labelled in (own, other))
            loss, *parts = (
                mix.share * a + (1 - mix.share) * b
                for a, b in zip((first.loss, *first.parts), (second.loss, *second.parts), strict=True)
            )
            output = LossOutput(loss, tuple(parts))
        if not self.smoothing:
            return output
        spread = self._spread(features, memory.classes)
        loss = (1 - self.smoothing) * output.loss + self.smoothing * spread
        return output._replace(loss=loss, parts=(*output.parts, spread))

    def _spread(self, features: Tensor, classes: Tensor) -> Tensor:
        """Mean over batch and classes of -log softmax(f . class / temperature)."""
        assert self.temperature is not None
        any_class = torch.zeros((len(features), 1), dtype=torch.int64, device=features.device)
        weight = features.new_ones((len(features), 1))
        return ops.soft_nce_loss(features, classes, any_class, weight, self.temperature, smooth=1.0)

    def figures_at(self, progress: float) -> dict[str, float]:
        return self.objective.figures_at(progress)

    def check(self, images: int) -> None:
        self.objective.check(images)


def soften(objective: Objective[Any], *, mixed: bool, smoothing: float) -> Objective[Any]:
    """The objective itself where there is nothing to soften.

    Raises:
        ValueError: if the method cannot do so.
    """
    if mixed and not objective.mixes:
        raise ValueError("--mix: expected none with this method, whose loss needs every image as it is")
    return Softened(objective, smoothing) if mixed or smoothing else objective
