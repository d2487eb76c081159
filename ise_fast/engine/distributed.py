"""One process or several under `torchrun`: the few collectives of training; each does nothing in a single process."""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ise_fast.engine.errors import UsageError

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process among its peers."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Rank 0 writes files, logs and clusters."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """The contiguous part of `count` rows that this process works on; parts differ by at most one row."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def on_main(self, function: Callable[[], T]) -> T:
        """Rank 0's result of `function` on every rank; an exception of rank 0 is raised on every rank.

        Tensors in the result should be on the CPU: they travel pickled.
        """
        if self.size == 1:
            return function()
        box: list[Any] = [None, None]
        if self.is_main:
            try:
                box[0] = function()
            except Exception as error:  # raised below, on every rank: peers must not wait for a result
                box[1] = error
        dist.broadcast_object_list(box, src=0, device=self.device)
        if box[1] is not None:
            raise box[1]
        return cast(T, box[0])

    def together(self, function: Callable[[], T]) -> T:
        """`function` on every rank; if it fails on one, all raise, so that none waits for the others for ever.

        Raises:
            UsageError: if another rank had one.
        """
        if self.size == 1:
            return function()
        result: Any = None
        own: Exception | None = None
        try:
            result = function()
        except Exception as error:  # raised below, when the others know
            own = error
        texts = self.gather_objects(None if own is None else f"{own}" or type(own).__name__)
        if own is not None:
            raise own
        failed = [rank for rank, text in enumerate(texts) if text is not None]
        if failed:
            raise UsageError(f"process {failed[0]}: {texts[failed[0]]}")
        return cast(T, result)

    def gather_objects(self, value: T) -> list[T]:
        """The value of every rank, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def concatenate(self, rows: Tensor, count: int) -> Tensor:
        """All ranks' `share(count)` rows, in rank order."""
        if self.size == 1:
            return rows
        longest = -(-count // self.size)
        if count < self.size:  # then some have no row to tell the width from
            widths = [shape for shape in self.gather_objects(tuple(rows.shape)) if shape[0]]
            rows = rows if rows.shape[0] or not widths else rows.new_empty((0, *widths[0][1:]))
        padded = rows.new_zeros((longest, *rows.shape[1:]))
        padded[: rows.shape[0]] = rows
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded)
        bounds = [(count * r // self.size, count * (r + 1) // self.size) for r in range(self.size)]
        return torch.cat([part[: stop - start] for part, (start, stop) in zip(parts, bounds, strict=True)])

    def gather_batch(self, features: Tensor) -> Tensor:
        """The features of the whole batch, in rank order; the gradient reaches this rank's rows only.

        Every rank then computes the same loss of the whole batch. DistributedDataParallel averages the gradients, so
        the caller multiplies the loss by `size` to get the gradient of one process with the whole batch.
        """
        if self.size == 1:
            return features
        parts = [torch.empty_like(features) for _ in range(self.size)]
        dist.all_gather(parts, features.detach().contiguous())
        parts[self.rank] = features
        return torch.cat(parts)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""
        if self.size == 1:
            return flag
        value = torch.tensor([int(flag)], device=self.device)
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
        return bool(value.item())

    def synchronise_buffers(self, model: nn.Module) -> None:
        """Rank 0's running statistics on every rank, so that all extract the same features."""
        if self.size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()


def choose_device(device: str = "auto") -> torch.device:
    """auto (a GPU if there is one), cpu, cuda (the one of this process) or cuda:N.

    Raises:
        ValueError: if the name is another one, or a GPU is asked for that is not there.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise ValueError(f"expected auto, cpu, cuda or cuda:N, got {device!r}")
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ValueError(f"expected auto or cpu on a machine without a usable GPU, got {device!r}")
    number = int(device.partition(":")[2] or os.environ.get("LOCAL_RANK", "0"))
    if number >= torch.cuda.device_count():
        raise ValueError(f"expected a GPU below {torch.cuda.device_count()}, got number {number}")
    return torch.device("cuda", number)


def start(device: str = "auto") -> World:
    """Join the process group that `torchrun` announces in the environment, or stand alone.

    Args:
        device: auto (a GPU if there is one), cpu, cuda or cuda:N.

    Raises:
        ValueError: if the name is another one, or a GPU is asked for that is not there.
    """
    size, rank = (int(os.environ.get(key, default)) for key, default in (("WORLD_SIZE", 1), ("RANK", 0)))
    chosen = choose_device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if size > 1 and not dist.is_initialized():
        # The others wait for rank 0 while it clusters, however long that takes.
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=timedelta(days=1))
    return World(rank, size, chosen)


def stop() -> None:
    """Leave the process group; to be called when the network is out of use."""
    if dist.is_available() and dist.is_initialized():
        # Cycles around DistributedDataParallel hold the group: its threads would outlive the interpreter and abort.
        gc.collect()
        dist.destroy_process_group()
