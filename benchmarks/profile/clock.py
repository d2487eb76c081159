"""python -m benchmarks.profile.clock FILE: the profiled operators by the clock, on a GPU.

Every workload runs at its published shapes on the GPU: events around the call with a cold cache, the same again from a
CUDA graph where one can be captured, and the time of each kernel as the driver's profiler reports it. FILE receives it
all as JSON; `python -m benchmarks.profile --clock FILE` sets it beside the predictions.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

import ise_fast.ops  # noqa: F401  registers torch.ops.ise_fast
from benchmarks import machine
from benchmarks.measure import Case, Variant, measure
from benchmarks.profile.workloads import WORKLOADS, Shape

log = logging.getLogger("benchmarks.profile.clock")

SECONDS = 0.3  # that the timed runs of a shape may take, beyond one
REPLAYS = 20


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout, force=True)
    device = torch.device("cuda")
    gc.freeze()  # what was imported need not be searched before every timed run
    record: dict[str, Any] = {"machine": machine.describe(device), "ceilings": machine.ceilings(device), "rows": []}
    for name, shape in runs(options.operators or list(WORKLOADS), options.least, options.until):
        begin = time.perf_counter()
        try:
            row = clock(name, shape)
        except (RuntimeError, ValueError) as error:  # one operator must not cost the others their turn
            log.info("%s %s: %s", name, shape, error)
            row = {"operator": name, "shape": shape, "error": str(error)}
        record["rows"].append(row)
        if "seconds" in row:
            log.info("%s %s: %.1f us (%.0f s)", name, shape, 1e6 * median(row), time.perf_counter() - begin)
        options.file.write_text(json.dumps(record, indent=1) + "\n")
        torch.cuda.empty_cache()
    return 0


def median(row: dict[str, Any]) -> float:
    return float(statistics.median(row["seconds"]))


def runs(operators: list[str], least: int, until: int) -> list[tuple[str, Shape]]:
    """Operators at their published shapes of `least` to `until` rows, fewest first: time limits cut off the longest."""
    every = [(name, shape) for name in operators for shape in WORKLOADS[name].published]
    asked = ((name, shape) for name, shape in every if least <= largest(shape) <= until)
    return sorted(asked, key=lambda run: largest(run[1]))


def largest(shape: Shape) -> int:
    return max(shape.values())


def clock(operator: str, shape: Shape) -> dict[str, Any]:
    """Seconds of an operator's runs, and of its kernels: {name: [launches, seconds]} of one run."""
    device = torch.device("cuda")
    with device:
        call = WORKLOADS[operator].prepare(shape, False)

        def run() -> Any:
            with device:
                return call(torch.ops.ise_fast)

        case = Case(operator, dict(shape), [Variant("ours", run)], device=device)
        timing = measure(case, rounds=10, budget=SECONDS)[0]
        row: dict[str, Any] = {
            "operator": operator,
            "shape": shape,
            "seconds": timing.seconds,
            "peak_bytes": timing.peak_bytes,
            "kernels": kernels(run),
        }
        if not any(name.startswith("Memcpy DtoH") for name in row["kernels"]):
            row["graph_seconds"] = graph_seconds(run)
    return row


def kernels(run: Callable[[], Any]) -> dict[str, tuple[int, float]]:
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        run()
        torch.cuda.synchronize()
    return {event.key: (event.count, event.device_time_total / 1e6) for event in seen.key_averages()}


def graph_seconds(run: Callable[[], Any]) -> float | None:
    """Seconds of a replay, mean of many; None if the calls cannot be captured."""
    graph = torch.cuda.CUDAGraph()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    try:
        with torch.cuda.stream(side):
            run()
        torch.cuda.synchronize()
        with torch.cuda.graph(graph):
            kept = run()
    except (RuntimeError, ValueError) as error:
        log.info("no graph: %s", str(error).split("\n")[0])
        return None
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    graph.replay()
    start.record()
    for _ in range(REPLAYS):
        graph.replay()
    stop.record()
    torch.cuda.synchronize()
    del kept
    return float(start.elapsed_time(stop)) / 1000 / REPLAYS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.profile.clock", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("file", type=Path, help="JSON that is written after every shape")
    parser.add_argument("operators", nargs="*", metavar="OPERATOR", help=", ".join(WORKLOADS))
    parser.add_argument("--least", type=int, default=0, help="leave out shapes with fewer rows than this")
    parser.add_argument("--until", type=int, default=2**62, help="leave out shapes with more rows than this")
    return parser


if __name__ == "__main__":
    sys.exit(main())
