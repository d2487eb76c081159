"""What follows the network in a training step: loss of the whole batch, its gradient, and the memory."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ise_fast.engine.distributed import World
from ise_fast.engine.precision import Precision
from ise_fast.methods import Batch, Memory, Objective


class LossResult(NamedTuple):
    """What a loss step gives."""

    losses: tuple[Tensor, ...]  # the loss and its parts, detached scalars
    gradient: Tensor  # [B, width] of the loss, scaled as the precision wants it


class LossStep:
    """The loss step of any method: nothing of it depends on the network or the optimiser.

    Args:
        objective: the loss.
        memory: what it contrasts with, the same on every process.
        precision: scales the loss.
        world: this process among its peers.
        parts: P > 0: rows are [B, (1 + P) d], images as a whole and their parts.
    """

    def __init__(
        self, objective: Objective[Any], memory: Memory, precision: Precision, world: World, parts: int = 0
    ) -> None:
        self.objective = objective
        self.memory = memory
        self.precision = precision
        self.world = world
        self.parts = parts

    def __call__(self, rows: Tensor, batch: Batch, progress: float) -> LossResult:
        """The loss and its gradient; the memory moves.

        Args:
            rows: [B, width] float32, what the network gave for the whole batch.
            batch: its images and labels.
            progress: t / T in [0, 1): iterations done, of all of the run.
        """
        leaf = rows.detach().requires_grad_()
        features, parts = split_parts(leaf, self.parts)
        output = self.objective(features, batch._replace(parts=parts), self.memory, progress)
        # The gathered rows of other processes carry no gradient here and DistributedDataParallel averages: times size.
        self.precision.scaled(output.loss * self.world.size).backward()
        if batch.mix is None or batch.mix.features:  # a mixed image is no image of any cluster
            parts = None if parts is None else parts.detach()
            self.memory.follow(features.detach(), batch._replace(parts=parts), output)
        gradient = torch.zeros_like(rows) if leaf.grad is None else leaf.grad
        return LossResult((output.loss.detach(), *(part.detach() for part in output.parts)), gradient)

    def release(self) -> None:
        """Between epochs: nothing is kept here."""


def split_parts(rows: Tensor, parts: int) -> tuple[Tensor, Tensor | None]:
    """[N, (1 + parts) d] into the whole images' features [N, d] and those of their parts [N, parts, d], if any."""
    if parts == 0:
        return rows, None
    split = rows.unflatten(1, (1 + parts, -1))
    return split[:, 0].contiguous(), split[:, 1:].contiguous()
