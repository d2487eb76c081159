"""The loss step in a CUDA graph: recorded once an epoch, then replayed.

The head of a step is some twenty launches and as many allocations, which take the host longer than the GPU. A graph is
one launch. It reads and writes the same addresses every time, so what changes from step to step is copied into tensors
that stay, and it is recorded anew when the memory's tensors, the shapes or the epoch are others.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from ise_fast.engine.loss_step import LossResult, LossStep, split_parts
from ise_fast.methods import Batch, Memory, Objective

T = TypeVar("T")
WARM_UP = 3  # steps that run as they are first, in which libraries set themselves up: that cannot be recorded
log = logging.getLogger(__name__)


class Recorder(Protocol):
    """How launches are recorded; the tests have one without a GPU."""

    def warm_up(self, step: Callable[[], T]) -> T:
        """Run the step as it is, where it will be recorded."""

    def record(self, step: Callable[[], T]) -> tuple[T, Callable[[], None]]:
        """Record the step, which does nothing yet: the tensors that it returns, and what fills them."""


class CudaRecorder:
    """CUDA graphs, warmed up on a side stream as torch.cuda.graph asks for."""

    def __init__(self) -> None:
        self.side = torch.cuda.Stream()

    def warm_up(self, step: Callable[[], T]) -> T:
        current = torch.cuda.current_stream()
        self.side.wait_stream(current)
        with torch.cuda.stream(self.side):
            result = step()
        current.wait_stream(self.side)
        return result

    def record(self, step: Callable[[], T]) -> tuple[T, Callable[[], None]]:
        graph = torch.cuda.CUDAGraph()
        # Of this thread only: another one loads batches into pinned memory meanwhile.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            result = step()
        return result, graph.replay


class GraphedLossStep:
    """A loss step that is recorded and replayed; called as the step itself, with the same results.

    Mixed batches run as they are. So does everything from the first failure of a recording on, which is warned of.

    Args:
        step: recorded; neither its objective nor its memory may have a `capture_obstacle`.
        recorder: of launches.
    """

    def __init__(self, step: LossStep, recorder: Recorder) -> None:
        self.step = step
        self.recorder = recorder
        self.failed = False
        self.release()

    def release(self) -> None:
        """Forget the recording and the memory that it holds, as at the end of an epoch."""
        self._key: Any = None
        self._buffers: list[Tensor] = []  # of the memory: kept, so that no other tensor takes their address
        self._inputs: list[Tensor] = []
        self._warm = 0
        self._result: LossResult | None = None
        self._replay: Callable[[], None] | None = None

    def __call__(self, rows: Tensor, batch: Batch, progress: float) -> LossResult:
        """As `LossStep`; the tensors of the result hold until the next call."""
        if self.failed or batch.mix is not None:
            return self.step(rows, batch, progress)
        features, _ = split_parts(rows.detach(), self.step.parts)
        drawn = self.step.objective.drawn(features, batch, progress)
        cams = () if batch.cams is None else (batch.cams,)
        self._take([rows.detach(), batch.images, batch.labels, *cams, *drawn], batch)
        if self._replay is None:
            kept = self._kept(batch)

            def body() -> LossResult:
                return self.step(self._inputs[0], kept, progress)

            if self._warm < WARM_UP:
                self._warm += 1
                return self.recorder.warm_up(body)
            try:
                self._result, self._replay = self.recorder.record(body)
            except RuntimeError as error:
                self.failed = True
                self.release()
                why = (str(error).splitlines() or [type(error).__name__])[0]
                log.warning("--cuda-graph: the loss step could not be recorded (%s); it runs launch by launch", why)
                return self.step(rows, batch, progress)
        self._replay()
        assert self._result is not None
        return self._result

    def _take(self, given: list[Tensor], batch: Batch) -> None:
        """Copy the tensors of a step to where a recording reads them, which is another place where it does not fit."""
        key = (batch.epoch, batch.cams is None, [(tensor.shape, tensor.dtype) for tensor in given])
        buffers = list(self.step.memory.buffers())
        same = len(buffers) == len(self._buffers) and all(a is b for a, b in zip(buffers, self._buffers, strict=True))
        if key != self._key or not same:
            self.release()
            self._key, self._buffers = key, buffers
            self._inputs = [torch.empty_like(tensor, device=given[0].device) for tensor in given]
        for kept, new in zip(self._inputs, given, strict=True):
            kept.copy_(new, non_blocking=True)

    def _kept(self, batch: Batch) -> Batch:
        """The batch with the tensors that a recording reads."""
        _, images, labels, *rest = self._inputs
        cams = None if batch.cams is None else rest.pop(0)
        return batch._replace(images=images, labels=labels, cams=cams, drawn=tuple(rest))


def obstacle(asked: bool, device: torch.device, objective: Objective[Any], memory: Memory) -> str | None:
    """Why loss steps are not recorded, None: they are; said once in the run's log.

    Args:
        asked: --cuda-graph.
        device: of the run.
        objective: its loss.
        memory: what it contrasts with.
    """
    if not asked:
        return "--no-cuda-graph"
    if device.type != "cuda":
        here = f"the loss step runs on the {device.type.upper()}"
        log.debug("--cuda-graph: not used, %s", here)
        return here
    why = objective.capture_obstacle or memory.capture_obstacle
    if why is not None:
        log.info("--cuda-graph: not used, %s", why)
    return why
