"""Mixed precision: where autocast applies, and loss scaling for fp16."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch import Tensor, nn


def allow_tf32(allowed: bool) -> None:
    """Whether a GPU may round the operands of float32 convolutions and products to 10 bits of mantissa.

    torch's own default is yes for convolutions and no for products; the published programs trained before there was a
    choice, in float32.
    """
    torch.backends.cudnn.allow_tf32 = allowed
    torch.backends.cuda.matmul.allow_tf32 = allowed


class Precision:
    """The arithmetic of the network's forward and backward pass; weights, loss and memory stay float32.

    Args:
        mode: fp32, bf16, or fp16 with dynamic loss scaling.
        device: where the network runs.
    """

    def __init__(self, mode: Literal["fp32", "bf16", "fp16"], device: torch.device) -> None:
        self.dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[mode]
        self.device = device
        self.scaler = torch.amp.grad_scaler.GradScaler(device.type, enabled=mode == "fp16")

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None)

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss times the scale of fp16; its gradient then has the size that `backward_and_step` expects."""
        scaled: Tensor = self.scaler.scale(loss)
        return scaled

    def backward_and_step(
        self, rows: Tensor, gradient: Tensor, model: nn.Module, optimizer: torch.optim.Optimizer, clip: float
    ) -> None:
        """One optimiser step on the scaled gradient towards the network's rows.

        Args:
            rows: [B, width] with their graph.
            gradient: of the same shape.
            model: has the parameters.
            optimizer: over them.
            clip: what the gradient norm is limited to; 0: not limited.
        """
        optimizer.zero_grad(set_to_none=True)
        rows.backward(gradient)
        if clip > 0:
            self.scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        self.scaler.step(optimizer)
        self.scaler.update()
