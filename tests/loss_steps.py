"""Loss steps of any method on a few random features, and a recorder that stands in for CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

from ise_fast.engine.distributed import World
from ise_fast.engine.loss_step import LossResult, LossStep
from ise_fast.engine.precision import Precision
from ise_fast.engine.step_graph import GraphedLossStep
from ise_fast.methods import METHODS, Batch, PseudoLabels

IMAGES, CLUSTERS, WIDTH, BATCH = 48, 12, 8, 16
RECORDED = [name for name, method in METHODS.items() if method.objective(method.settings()).capture_obstacle is None]
aten = torch.ops.aten
READS_BACK = {
    aten._local_scalar_dense, aten.equal, aten.is_nonzero, aten.nonzero, aten.masked_select, aten.bincount,
    aten._unique2, aten.unique_dim, aten.unique_consecutive,
}  # fmt: skip


class NoReadBacks(TorchDispatchMode):
    """Fails as a capture does, with a RuntimeError, where the host would wait for a number of the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        indexes = func.overloadpacket in (aten.index, aten.index_put, aten.index_put_)
        by_mask = indexes and any(i is not None and i.dtype == torch.bool for i in args[1])
        if by_mask or func.overloadpacket in READS_BACK:
            raise RuntimeError(f"operation not permitted when stream is capturing: {func}\nmore lines")
        return func(*args, **(kwargs or {}))


class Calls:
    """Records without a GPU: a replay calls the step again, with the numbers that the host had at the recording.

    Recording moves nothing, and what a replay gives lies where the recording's result lay, as in a CUDA graph.
    """

    def __init__(self, memory: torch.nn.Module) -> None:
        self.memory = memory
        self.warm = self.records = self.replays = 0

    def warm_up(self, step: Callable[[], LossResult]) -> LossResult:
        self.warm += 1
        return step()

    def record(self, step: Callable[[], LossResult]) -> tuple[LossResult, Callable[[], None]]:
        self.records += 1
        kept = [*self.memory.buffers(), *(v for v in vars(self.memory).values() if isinstance(v, Tensor))]
        before = [tensor.clone() for tensor in kept]
        with NoReadBacks():
            result = step()
        for tensor, value in zip(kept, before, strict=True):
            tensor.copy_(value)

        def replay() -> None:
            self.replays += 1
            again = step()
            for there, here in zip((*result.losses, result.gradient), (*again.losses, again.gradient), strict=True):
                there.copy_(here)

        return result, replay


def make_step(name: str, device: torch.device | str = "cpu", **settings: Any) -> LossStep:
    """The loss step of a method whose memory has begun with `features_of(name)`."""
    method, device = METHODS[name], torch.device(device)
    chosen = method.settings(**settings)
    memory = method.memory(chosen, WIDTH).to(device)
    begin(memory, method.parts, device)
    return LossStep(method.objective(chosen), memory, Precision("fp32", device), World(0, 1, device), method.parts)


def begin(memory: Any, parts: int, device: torch.device, seed: int = 0) -> None:
    g = torch.Generator().manual_seed(seed)
    rows = normalize(torch.randn(IMAGES, 1 + parts, WIDTH, generator=g), dim=2).to(device)
    labels = torch.arange(IMAGES) % CLUSTERS
    pseudo = PseudoLabels(labels, parts=rows[:, 1:].contiguous() if parts else None)
    memory.begin(rows[:, 0].contiguous(), pseudo, (torch.arange(IMAGES) % 3).to(device))


def batches(step: LossStep, count: int, *, epoch: int = 6, rows: int = BATCH) -> list[tuple[Tensor, Batch, float]]:
    """Rows of the network, batch and progress of `count` steps."""
    device, made = step.world.device, []
    for i in range(count):
        g = torch.Generator().manual_seed(100 + i)
        images = torch.randint(IMAGES, (rows,), generator=g)
        features = normalize(torch.randn(rows, 1 + step.parts, WIDTH, generator=g), dim=2).flatten(1)
        batch = Batch(images, images % CLUSTERS, images % 3, epoch, seed=i)
        made.append((features.to(device), batch.each(lambda tensor: tensor.to(device)), 0.2 + i / 100))
    return made


def results(loss: LossStep | GraphedLossStep, made: list[tuple[Tensor, Batch, float]]) -> list[Tensor]:
    """All that the steps give and leave behind, copied before the next step may write over it."""
    step = loss.step if isinstance(loss, GraphedLossStep) else loss
    found: list[Tensor] = []
    for rows, batch, progress in made:
        result = loss(rows, batch, progress)
        found += [tensor.clone() for tensor in (*result.losses, result.gradient, *step.memory.buffers())]
    return found
