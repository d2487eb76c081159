"""The model beside the clock, kernel by kernel.

A record of clock.py is of the kernels as they were that day. So the counts that the model needs are kept beside it
(`python -m benchmarks.profile --clock RECORD --counts FILE`), extrapolated to the shapes that were timed: what differs
later is the model alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.profile import model
from benchmarks.profile.counts import Shape
from benchmarks.profile.model import Gpu, Resources
from benchmarks.profile.predict import Measured, predict
from benchmarks.profile.report import shape_text, time_text
from benchmarks.profile.workloads import WORKLOADS

Needs = dict[str, dict[str, Resources]]  # of "knn N=5 x d=8": of each kernel

#: a kernel that matters takes so many seconds a launch, and so much of its operator's kernels
LEAST_SECONDS, LEAST_SHARE = 5e-6, 0.05


@dataclass(frozen=True)
class Timed:
    """A kernel by the clock and by the model, in seconds of a launch: how many there are can depend on the data."""

    run: str
    kernel: str
    clock: float
    predicted: float
    bound: str
    matters: bool

    @property
    def ratio(self) -> float:
        return self.clock / self.predicted


def run_text(operator: str, shape: Shape) -> str:
    return f"{operator} {shape_text(shape)}"


def kernel_name(profiled: str) -> str | None:
    """The interpreter's name of a kernel of ours that the driver's profiler reports; None for others."""
    if "ise_fast::" not in profiled:
        return None
    bare = re.sub(r"^void |ise_fast::|\(anonymous namespace\)::", "", profiled)
    return bare[: bare.index("(")]


def timed(record: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Which operators a record has times of, at shapes with the dimensions that they are counted by today."""
    shapes = [(row["operator"], row["shape"].keys()) for row in record["rows"]]
    return [name for name in names if (name, WORKLOADS[name].small.keys()) in shapes]


def needs_of(record: Mapping[str, Any], measured: Mapping[str, Measured], gpu: Gpu) -> Needs:
    """What the kernels of the runs in a record need."""
    return {
        run_text(row["operator"], row["shape"]): {
            kernel: need
            for kernel, (_, _, need) in predict(measured[row["operator"]], row["shape"], gpu).kernels.items()
        }
        for row in record["rows"]
        if "kernels" in row and row["operator"] in measured
    }


def save(needs: Needs, path: Path) -> None:
    found = {run: {name: _rounded(need) for name, need in kernels.items()} for run, kernels in needs.items()}
    path.write_text(json.dumps(found, indent=1) + "\n")


def _rounded(need: Resources) -> dict[str, float]:
    return {name: float(f"{value:.4g}") for name, value in need.values().items() if value >= 0.5}


def load(path: Path) -> Needs:
    found = json.loads(path.read_text())
    return {run: {name: Resources(**need) for name, need in kernels.items()} for run, kernels in found.items()}


def compare(record: Mapping[str, Any], needs: Needs, gpu: Gpu) -> list[Timed]:
    """The kernels that were both timed and counted."""
    found = []
    for row in record["rows"]:
        run = run_text(row["operator"], row["shape"])
        total = sum(seconds for _, seconds in row.get("kernels", {}).values())
        for profiled, (launches, seconds) in row.get("kernels", {}).items():
            need = needs.get(run, {}).get(kernel_name(profiled) or "")
            if need is None:
                continue
            predicted, bound = model.kernel_seconds(need, gpu, model.START)
            clock, predicted = seconds / launches, predicted / need.launches
            matters = clock >= LEAST_SECONDS and seconds >= LEAST_SHARE * total
            found.append(Timed(run, kernel_name(profiled) or "", clock, predicted, bound, matters))
    return found


def table(all_timed: list[Timed]) -> str:
    """The kernels that matter, the worst predicted first."""
    rows = ["| kernel | of | clock | predicted | clock over it | bound by |", "|---|---|---|---|---|---|"]
    for timed in sorted(all_timed, key=lambda each: -max(each.ratio, 1 / each.ratio)):
        if timed.matters:
            rows.append(
                f"| `{timed.kernel}` | {timed.run} | {time_text(timed.clock)} | {time_text(timed.predicted)} | "
                f"{timed.ratio:.2f} | {timed.bound} |"
            )
    return "\n".join(rows)
