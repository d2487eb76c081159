"""What a run of an operator counted, as tests/ptx/counts.cpp writes it."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from benchmarks.profile.interpreter import run

Shape = dict[str, int]

GLOBAL = ("load global", "store global", "atomic global")
SHARED = ("load shared", "store shared", "atomic shared")
FREE = ("move", "parameter")  # ptxas makes registers of them


@dataclass(frozen=True)
class Line:
    """Counts of one kind of instruction on one source line.

    `warps`: executions by a warp, of an access: requests. `lanes`: active in them. `sectors` of 32 bytes moved, `used`:
    bytes of them asked for. `waves`: passes over the banks of shared memory. `divided`: branches that split a warp.
    `meetings`: atomics that met another of their request on one word. `bytes`: of a lane's access.
    """

    line: str
    kind: str
    warps: int
    lanes: int
    sectors: int
    used: int
    waves: int
    divided: int
    meetings: int
    bytes: int


@dataclass(frozen=True)
class Kernel:
    """All launches of one kernel.

    `touched`: sectors, each once a launch; `fetched`: those that their block did not have any more, and all that were
    written. `longest_block`: clocks of the slowest block of each launch, summed; `occupied`: of all blocks, over how
    many of them a multiprocessor holds at once.
    """

    name: str
    launches: int
    blocks: int
    warps: int
    touched: int
    fetched: int
    longest_block: int
    occupied: int
    lines: tuple[Line, ...]

    def total(self, field: str, kinds: Iterable[str] = ()) -> int:
        """Sum of a field of the lines, of some kinds only where kinds are given."""
        return sum(getattr(line, field) for line in self.lines if not kinds or line.kind in kinds)

    def plus(self, other: Kernel) -> Kernel:
        """With the launches of the kernel of this name in another file."""
        return Kernel(self.name, *(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)[1:]))

    @property
    def instructions(self) -> int:
        return self.total("warps") - self.total("warps", FREE)

    def worst(self, measure: Callable[[Line], float]) -> Line | None:
        """The line of which `measure` is largest."""
        return max(self.lines, key=measure, default=None)


@dataclass(frozen=True)
class Counts:
    """A run: kernels, the calls around them in the order they came (see tests/ptx/runtime.cpp), and the operators of
    torch.ops.ise_fast that were called."""

    allocations: int
    peak_bytes: int
    events: tuple[dict[str, Any], ...]
    kernels: dict[str, Kernel]
    operators: tuple[str, ...] = ()

    def calls(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["kind"] == kind]

    @property
    def flops(self) -> int:
        return sum(map(product_flops, self.calls("product")))


def product_flops(call: Mapping[str, int]) -> int:
    return 2 * call["m"] * call["n"] * call["k"] * call.get("count", 1)


def parse(found: dict[str, Any]) -> Counts:
    """Counts from the JSON of the interpreter."""
    kernels: dict[str, Kernel] = {}
    for entry in found["kernels"]:
        kernel = Kernel(**{**entry, "lines": tuple(Line(**line) for line in entry["lines"])})
        kernels[kernel.name] = kernels[kernel.name].plus(kernel) if kernel.name in kernels else kernel
    operators = tuple(found.get("operators", ()))
    return Counts(found["allocations"], found["peak_bytes"], tuple(found["events"]), kernels, operators)


def count(wanted: Sequence[tuple[str, Shape]], dry: bool = False) -> list[Counts]:
    """Runs operators of `workloads` at shapes, one after the other in a process of its own.

    Args:
        wanted: (operator, shape) pairs.
        dry: count launches, products and memory only; no kernel and no product is run, so that sizes of any kind are
            possible for operators whose launches do not depend on results.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "wanted.json").write_text(json.dumps({"runs": wanted, "dry": dry}))
        done: subprocess.CompletedProcess[str] = run("-m", "benchmarks.profile.runner", folder)
        if done.returncode != 0:
            raise RuntimeError(f"the interpreter failed:\n{done.stdout}{done.stderr}")
        return [parse(json.loads((folder / f"{i}.json").read_text())) for i in range(len(wanted))]
