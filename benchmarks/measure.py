"""Timing that can be trusted: every variant warmed up and checked, then all of them in turn, round by round.

Interleaving makes ratios hold when the machine's speed drifts; the median is quoted, minimum and maximum show the
noise. On a GPU the clock is a pair of events; between runs the cache is overwritten.
"""

from __future__ import annotations

import ctypes
import gc
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

_FLUSH_BYTES = 256 * 2**20


class WrongResult(RuntimeError):
    """A variant that must agree with the truth does not: no time of it is shown."""


@dataclass(frozen=True)
class Variant:
    """One way to compute a case.

    Args:
        name: e.g. "fused", "reference", "published", "scikit-learn".
        run: computes the result; on a GPU without waiting for it.
        check: compares the result with the truth, None for the truth itself. Returns a remark ("" if all is equal) for
            the table; raises WrongResult if the result is not acceptable.
        prepare: called before each run, outside the clock (for example to restore a buffer that `run` overwrites).
        memory: whether this variant's peak memory is taken.
    """

    name: str
    run: Callable[[], Any]
    check: Callable[[Any], str] | None = None
    prepare: Callable[[], object] | None = None
    memory: bool = True


@dataclass(frozen=True)
class Case:
    """One operator at one size.

    Args:
        operator: the public name, e.g. "knn".
        shape: what is printed, e.g. {"N": 12936, "d": 2048}.
        variants: the first one is ours and is what others are compared with.
        flops: fewest floating-point operations that the answer needs.
        bytes: fewest bytes that must move: each input read once, each output written once.
        axis: the key of `shape` that a growth curve over sizes runs along; "" for a case outside such a curve.
        skipped: variants that could not run here, with the reason.
    """

    operator: str
    shape: dict[str, float]
    variants: Sequence[Variant]
    flops: float = 0.0
    bytes: float = 0.0
    axis: str = ""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    skipped: dict[str, str] = field(default_factory=dict)


@dataclass
class Timing:
    """What was measured of one variant: seconds of each run, extra bytes at the peak, remark of the check."""

    name: str
    seconds: list[float]
    peak_bytes: int | None
    remark: str

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def measure(
    case: Case, *, rounds: int = 5, budget: float = 60.0, clock: Callable[[], float] = time.perf_counter
) -> list[Timing]:
    """Run all variants of a case in turn.

    Args:
        case: what to run.
        rounds: runs of each variant after the one that warms up and is checked.
        budget: seconds; a variant that has used its share stops early (with one timed run at least).
        clock: of a CPU. `time.process_time` counts the processor seconds of all threads, which a machine that others
            use at the same time leaves nearly as they are.

    Raises:
        WrongResult: from a variant's check.
    """
    timings = []
    share = budget / len(case.variants)
    for variant in case.variants:
        seconds, peak, result = _run_once(variant, case.device, clock, memory=variant.memory)
        remark = variant.check(result) if variant.check else ""
        del result
        # A first run beyond its share is also the measurement: repeating minutes of a slow variant teaches nothing.
        timings.append(Timing(variant.name, [seconds] if seconds > share else [], peak, remark))
    spent = dict.fromkeys((t.name for t in timings), 0.0)
    for _ in range(rounds):
        for variant, timing in zip(case.variants, timings, strict=True):
            if timing.seconds and (spent[variant.name] > share or timing.seconds[0] > share):
                continue
            seconds, _peak, _result = _run_once(variant, case.device, clock, memory=False)
            timing.seconds.append(seconds)
            spent[variant.name] += seconds
    return timings


def _run_once(
    variant: Variant, device: torch.device, clock: Callable[[], float], *, memory: bool
) -> tuple[float, int | None, Any]:
    if variant.prepare:
        variant.prepare()
    gc.collect()
    _flush_cache(device)
    with PeakMemory(device) as peak:
        if device.type == "cuda":
            start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            result = variant.run()
            stop.record()
            torch.cuda.synchronize(device)
            seconds = start.elapsed_time(stop) / 1000
        else:
            begin = clock()
            result = variant.run()
            seconds = clock() - begin
    return seconds, peak.extra if memory else None, result


def _flush_cache(device: torch.device) -> None:
    torch.empty(_FLUSH_BYTES, dtype=torch.uint8, device=device).fill_(1)
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class PeakMemory:
    """Bytes allocated at the peak inside the block beyond those before it: `extra`.

    On a GPU the allocator knows; on a CPU the resident set is sampled every 2 ms, which a short run can escape. Freed
    memory that the process still holds is handed back first, or the block could use it unseen.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.extra = 0

    def __enter__(self) -> PeakMemory:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self._before = torch.cuda.memory_allocated(self.device)
        else:
            _hand_back()
            self._before = self._highest = _resident()
            self._stop = threading.Event()
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.002):
            self._highest = max(self._highest, _resident())

    def __exit__(self, *_: object) -> None:
        if self.device.type == "cuda":
            self.extra = torch.cuda.max_memory_allocated(self.device) - self._before
        else:
            self._stop.set()
            self._thread.join()
            self.extra = max(self._highest, _resident()) - self._before


def _hand_back() -> None:
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc
    if trim:
        trim(0)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
