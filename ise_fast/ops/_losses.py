"""Rules that the losses with one gradient share: the forward operator makes it, the backward operator scales it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import ise_fast._library  # noqa: F401 - registers torch.ops.ise_fast
from ise_fast.ops._fake import register_fake
from ise_fast.ops._inputs import refuse_second_derivative


def wants_gradient(features: Tensor) -> bool:
    return features.requires_grad and torch.is_grad_enabled()


def fake_loss(features: Tensor, needs_gradient: bool) -> tuple[Tensor, Tensor]:
    rows, d = features.shape
    return features.new_empty(()), features.new_empty((rows if needs_gradient else 0, d))


def register_loss(name: str) -> None:
    """Autograd of an operator that takes features first and returns (loss, gradient)."""

    def setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.set_materialize_grads(False)
        # The features go along so that a second derivative reaches its refusal instead of finding a constant.
        ctx.save_for_backward(inputs[0], output[1])
        ctx.inputs = len(inputs)

    def backward(ctx: Any, grad: Tensor | None, _: Tensor | None) -> tuple[Any, ...]:
        rest = [None] * (ctx.inputs - 1)
        if grad is None:
            return None, *rest
        return torch.ops.ise_fast.loss_backward(grad, *ctx.saved_tensors, name), *rest

    torch.library.register_autograd(f"ise_fast::{name}", backward, setup_context=setup)


@register_fake("loss_backward")
def _(grad: Tensor, features: Tensor, gradient: Tensor, loss: str) -> Tensor:
    return torch.empty_like(gradient)


def _second_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.loss = inputs[3]


def _second(ctx: Any, grad: Tensor) -> None:
    refuse_second_derivative(ctx.loss)


torch.library.register_autograd("ise_fast::loss_backward", _second, setup_context=_second_setup)
