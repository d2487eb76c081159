"""Budgets: what each operator may count at two sizes, and how fast it may grow. They only ever go down.

`python -m benchmarks.profile --lower-budgets` writes tests/ptx/budgets.json, and later what has become less. A count
that must rise is written into the file by hand, in a commit that says why.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.profile.counts import GLOBAL, SHARED, Counts, Kernel, Shape, count
from benchmarks.profile.growth import doubled, exponent
from benchmarks.profile.interpreter import ROOT
from benchmarks.profile.report import line_text, shape_text
from benchmarks.profile.workloads import WORKLOADS

FILE = ROOT / "tests" / "ptx" / "budgets.json"

#: products in float32 differ between CPUs in the last bits, and with them how many candidates pass a filter
TOLERANCE = 1.02
#: of an exponent; counts that stay small have no growth to speak of
EXPONENT_TOLERANCE, TOO_SMALL = 0.1, 200

#: what is held of a kernel: name -> (its total, the count of a line that leads it)
MEASURES = {
    "instructions": (lambda k: k.instructions, lambda line: line.warps),
    "requests": (lambda k: k.total("warps", GLOBAL), lambda line: line.warps * (line.kind in GLOBAL)),
    "bytes": (lambda k: 32 * k.total("sectors"), lambda line: line.sectors),
    "shared_waves": (lambda k: k.total("waves", SHARED), lambda line: line.waves),
}

#: what is held of an operator
CALLS = {
    "launches": lambda c: len(c.calls("launch")),
    "products": lambda c: len(c.calls("product")),
    "flops": lambda c: c.flops,
    "cub": lambda c: len(c.calls("cub")),
    "read_backs": lambda c: len(c.calls("read_back")),
    "allocations": lambda c: c.allocations,
    "peak_bytes": lambda c: c.peak_bytes,
}

Budgets = dict[str, Any]


@dataclass(frozen=True)
class Operator:
    """Counts of an operator at its small shape, and with every dimension doubled in turn and all at once."""

    shape: Shape
    small: Counts
    large: Counts
    doubled: dict[str, Counts]


def shapes_of(small: Shape) -> list[Shape]:
    return [small, {name: 2 * size for name, size in small.items()}, *(doubled(small, name) for name in small)]


def gather(shape: Shape, runs: list[Counts]) -> Operator:
    return Operator(shape, runs[0], runs[1], dict(zip(shape, runs[2:], strict=True)))


def count_all() -> dict[str, Operator]:
    """Counts every operator of `workloads`, in one process; what one dimension alone makes large only once."""
    wanted: list[tuple[str, Shape]] = []
    for name, workload in WORKLOADS.items():
        wanted += [(name, shape) for shape in shapes_of(workload.held) if (name, shape) not in wanted]
    runs = count(wanted)
    return {
        name: gather(workload.held, [runs[wanted.index((name, shape))] for shape in shapes_of(workload.held)])
        for name, workload in WORKLOADS.items()
    }


def kernel_exponent(operator: Operator, kernel: str, dimension: str, measure: str) -> float:
    """How a count of a kernel grows with a dimension."""
    total = MEASURES[measure][0]
    small, large = operator.small.kernels.get(kernel), operator.doubled[dimension].kernels.get(kernel)
    before, after = (total(k) if k else 0 for k in (small, large))
    return 0.0 if after < TOO_SMALL else round(exponent(before, after), 2)


def _at(counts: Counts) -> dict[str, Any]:
    return {
        **{name: of(counts) for name, of in CALLS.items()},
        "kernels": {
            name: {measure: of(kernel) for measure, (of, _) in MEASURES.items()}
            for name, kernel in sorted(counts.kernels.items())
        },
    }


def of(operator: Operator) -> dict[str, Any]:
    """An operator's counts in the form of the file."""
    return {
        "shape": operator.shape,
        "operators": list(operator.small.operators),
        "small": _at(operator.small),
        "large": _at(operator.large),
        "growth": {
            kernel: {d: kernel_exponent(operator, kernel, d, "instructions") for d in operator.shape}
            for kernel in sorted(operator.large.kernels)
        },
    }


def load() -> Budgets:
    return json.loads(FILE.read_text()) if FILE.exists() else {}


def save(budgets: Budgets, path: Path = FILE) -> None:
    path.write_text(json.dumps(budgets, indent=1) + "\n")


def _lower(old: Any, new: Any) -> Any:
    """The smaller of two numbers, in dictionaries entry by entry; what is new or no number is taken."""
    if isinstance(old, dict) and isinstance(new, dict):
        return {key: _lower(old.get(key), value) for key, value in new.items()}
    return min(old, new) if isinstance(old, int | float) else new


def lowered(budgets: Budgets, found: dict[str, Operator]) -> Budgets:
    """Budgets with what counts less today, and with operators and kernels that have none yet."""
    new = {name: of(operator) for name, operator in found.items()}
    same = {n: b for n, b in budgets.items() if n in new and b["shape"] == new[n]["shape"]}
    return {name: _lower(same.get(name), value) for name, value in new.items()}


def exceeded(budgets: Budgets, found: dict[str, Operator]) -> list[str]:
    """A line for each count that is above its budget, with the kernel and the source line behind most of it."""
    failures: list[str] = []
    for name, operator in found.items():
        held = budgets.get(name)
        if held is None or held["shape"] != operator.shape:
            failures.append(f"{name}: has no budget at {shape_text(operator.shape)}: run --lower-budgets")
            continue
        failures += _exceeded_at(name, held["small"], operator.small)
        failures += _exceeded_at(name, held["large"], operator.large)
        for kernel, dimension in ((k, d) for k in sorted(operator.large.kernels) for d in operator.shape):
            grows = kernel_exponent(operator, kernel, dimension, "instructions")
            allowed = held["growth"].get(kernel, {}).get(dimension, 0.0)
            if grows > allowed + EXPONENT_TOLERANCE:
                failures.append(
                    f"{name}: {kernel}: instructions grow as {dimension}^{grows:.2f}, budget {allowed:.2f}, fastest "
                    f"{_fastest(operator.small.kernels.get(kernel), operator.doubled[dimension].kernels[kernel])}"
                )
    return failures


def _exceeded_at(name: str, held: dict[str, Any], counts: Counts) -> list[str]:
    failures = [
        f"{name}: {call}: {of(counts)}, budget {held[call]}"
        for call, of in CALLS.items()
        if of(counts) > held[call] * TOLERANCE
    ]
    for kernel in counts.kernels.values():
        budget = held["kernels"].get(kernel.name)
        if budget is None:
            failures.append(f"{name}: {kernel.name}: a kernel without a budget: run --lower-budgets")
            continue
        for measure, (of, leads) in MEASURES.items():
            if of(kernel) > budget[measure] * TOLERANCE:
                line = kernel.worst(leads)
                failures.append(
                    f"{name}: {kernel.name}: {of(kernel):,} {measure}, budget {budget[measure]:,}, most at "
                    f"{line_text(line) if line else '?'}"
                )
    return failures


def _fastest(small: Kernel | None, large: Kernel) -> str:
    """The line whose count grew most."""
    before = {(line.line, line.kind): line.warps for line in small.lines} if small else {}
    line = max(large.lines, key=lambda line: line.warps - 2 * before.get((line.line, line.kind), 0))
    return f"at {line_text(line)}"
