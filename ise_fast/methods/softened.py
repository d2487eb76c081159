"""Any objective on mixed batches (mixup, CutMix, mixed features) and with smoothed labels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ise_fast import ops
from ise_fast.methods.interface import Objective
from ise_fast.methods.records import Batch, LossOutput

Targets = tuple[Tensor, Tensor]


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
        if mix is not None and mix.features:
            features = mixed_rows(features, mix.partner, mix.share)
        other = own if mix is None else own.each(lambda rows: rows[mix.partner])
        targets = self.objective.targets(own, memory)
        if targets is not None:
            if mix is not None:
                targets = mixed_targets(targets, self.objective.targets(other, memory), mix.share)
            return self._at_once(features, memory.classes, *targets)
        if mix is None:
            output = self.objective(features, own, memory, progress)
        else:
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

    def _at_once(self, features: Tensor, classes: Tensor, columns: Tensor, weights: Tensor) -> LossOutput:
        """One loss with all targets; U follows from it, since L - U is the mean logit less that of the targets."""
        a, tau = self.smoothing, self.temperature
        assert tau is not None
        loss = ops.soft_nce_loss(features, classes, columns, weights, tau, smooth=a)
        if not a:
            return LossOutput(loss)
        with torch.no_grad():
            aimed = weights * torch.bmm(classes[columns], features[:, :, None])[:, :, 0]
            spread = loss - (1 - a) * ((features @ classes.mean(0)).mean() - aimed.sum(1).mean()) / tau
        return LossOutput(loss, (spread,))

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


class _MixedRows(torch.autograd.Function):
    """Written out, since PyTorch's own operators take a dozen new buffers of the batch's size there and back."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, partner: Tensor, share: float) -> Tensor:
        mixed = rows.index_select(0, partner).lerp_(rows, share)
        length = torch.linalg.vector_norm(mixed, dim=1, keepdim=True).clamp_min_(1e-12)
        ctx.share = share
        ctx.save_for_backward(mixed.div_(length), length, partner)
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        mixed, length, partner = ctx.saved_tensors
        turned = mixed * gradient
        along = turned.sum(1, keepdim=True)
        torch.addcmul(gradient, mixed, along, value=-1, out=turned).div_(length)
        return turned.index_select(0, partner.argsort()).lerp_(turned, ctx.share), None, None


def mixed_rows(rows: Tensor, partner: Tensor, share: float) -> Tensor:
    """Unit rows along share x rows + (1 - share) x rows[partner].

    Args:
        rows: [B, d] floating; takes the gradient.
        partner: [B] int64, a permutation of the rows.
        share: in [0, 1].
    """
    mixed: Tensor = _MixedRows.apply(rows, partner, share)
    return mixed


def mixed_targets(own: Targets, other: Targets | None, share: float) -> Targets:
    """Those of the images and of their partners together."""
    assert other is not None
    columns = torch.cat([own[0], other[0]], dim=1)
    return columns, torch.cat([share * own[1], (1 - share) * other[1]], dim=1)


def soften(objective: Objective[Any], *, mixed: bool, smoothing: float) -> Objective[Any]:
    """The objective itself where there is nothing to soften.

    Raises:
        ValueError: if the method cannot do so.
    """
    if mixed and not objective.mixes:
        raise ValueError("--mix: expected none with this method, whose loss needs every image as it is")
    return Softened(objective, smoothing) if mixed or smoothing else objective
