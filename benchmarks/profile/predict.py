"""The predicted time of an operator at any size, from counts at small ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.profile import growth, model
from benchmarks.profile.counts import Counts, Shape, count, product_flops
from benchmarks.profile.model import Gpu, Resources
from benchmarks.profile.workloads import WORKLOADS


@dataclass(frozen=True)
class Measured:
    """Counts of an operator at the shapes that tell its growth, and dry runs at the published ones."""

    operator: str
    shapes: tuple[Shape, ...]
    runs: tuple[Counts, ...]
    dry: dict[tuple[tuple[str, int], ...], Counts]


@dataclass(frozen=True)
class Prediction:
    """Seconds of an operator at a shape by what they go to, and beside them the floor."""

    shape: Shape
    kernels: dict[str, tuple[float, str, Resources]]  # seconds, what bounds it, what it needs
    others: dict[str, float]  # products, read-backs, CUB, fills
    flops: float
    floor_flops: float
    moved: float
    floor_bytes: float
    floor: float
    launches: float
    read_backs: float

    @property
    def seconds(self) -> float:
        return sum(seconds for seconds, _, _ in self.kernels.values()) + sum(self.others.values())


def measure(operator: str, small: Shape | None = None) -> Measured:
    """Counts an operator at and above `small` (as in `workloads`, if not given) and dry at its published shapes."""
    return measure_all({operator: small or WORKLOADS[operator].small})[0]


def measure_all(smallest: Mapping[str, Shape]) -> list[Measured]:
    """The same for several operators, in two processes: to start one takes longer than most counts."""
    shapes = {name: growth.shapes_to_count(small, WORKLOADS[name].terms) for name, small in smallest.items()}
    dry_shapes = {name: WORKLOADS[name].published if WORKLOADS[name].dry else () for name in smallest}
    runs = iter(count([(name, shape) for name in smallest for shape in shapes[name]]))
    wanted = [(name, shape) for name in smallest for shape in dry_shapes[name]]
    dry = iter(count(wanted, dry=True) if wanted else [])
    return [
        Measured(
            name,
            tuple(shapes[name]),
            tuple(next(runs) for _ in shapes[name]),
            {tuple(shape.items()): next(dry) for shape in dry_shapes[name]},
        )
        for name in smallest
    ]


def predict(measured: Measured, target: Shape, gpu: Gpu) -> Prediction:
    workload = WORKLOADS[measured.operator]
    dry = measured.dry.get(tuple(target.items()))
    needs = growth.extrapolate(measured.shapes, measured.runs, target, workload.terms)
    if dry:  # launches and blocks as they are, not as they grow; a large size may do without a kernel
        needs = {name: _with_launches(need, name, dry) for name, need in needs.items()}
        needs = {name: need for name, need in needs.items() if need.launches}
    # What exists is read from memory once a launch.
    most = workload.bytes(target) + (dry.peak_bytes if dry else math.inf)
    needs = {
        name: replace(need, memory_bytes=min(need.memory_bytes, need.launches * most)) for name, need in needs.items()
    }
    kernels = {name: (*model.kernel_seconds(need, gpu), need) for name, need in needs.items()}
    others = model.other_seconds(dry, gpu) if dry else _extrapolated_others(measured, target, gpu)
    flops = float(dry.flops) if dry else _grown(measured, target, [float(run.flops) for run in measured.runs])
    floor_flops, floor_bytes = workload.flops(target), workload.bytes(target)
    return Prediction(
        shape=target,
        kernels=dict(sorted(kernels.items(), key=lambda item: -item[1][0])),
        others=others,
        flops=flops,
        floor_flops=floor_flops,
        moved=sum(need.memory_bytes for need in needs.values()),
        floor_bytes=floor_bytes,
        floor=model.floor_seconds(floor_flops, floor_bytes, gpu),
        launches=sum(need.launches for need in needs.values()),
        read_backs=others["read-backs"] / model.READ_BACK,
    )


def _with_launches(need: Resources, name: str, dry: Counts) -> Resources:
    found = [call for call in dry.calls("launch") if call["name"] == name]
    blocks = sum(call["grid_x"] * call["grid_y"] * call["grid_z"] for call in found)
    longest = need.longest_block / max(need.launches, 1) * len(found)
    return Resources(**{**need.values(), "launches": len(found), "blocks": blocks, "longest_block": longest})


def _grown(measured: Measured, target: Shape, values: Sequence[float]) -> float:
    terms = WORKLOADS[measured.operator].terms
    return growth.predict(measured.shapes, values, target, terms) if any(values) else 0.0


def _extrapolated_others(measured: Measured, target: Shape, gpu: Gpu) -> dict[str, float]:
    rows = [model.other_seconds(run, gpu) for run in measured.runs]
    others = {name: _grown(measured, target, [row[name] for row in rows]) for name in rows[0]}
    kinds = sorted({_kind(call) for run in measured.runs for call in run.calls("product")})
    return {**others, "products": sum(_extrapolated_products(measured, target, kind, gpu) for kind in kinds)}


def _kind(call: Mapping[str, Any]) -> tuple[str, bool]:
    """The type of a product and whether its rows are aligned: at another size they may not be, which is not seen."""
    return call["name"], not model.unaligned(call)


def _extrapolated_products(measured: Measured, target: Shape, kind: tuple[str, bool], gpu: Gpu) -> float:
    """FLOPs and bytes each by their own growth: small products are bounded by bytes, large ones are not."""
    runs = [[call for call in run.calls("product") if _kind(call) == kind] for run in measured.runs]
    operations = [float(sum(map(product_flops, calls))) for calls in runs]
    flops = growth.power_law(measured.shapes, operations, target)  # no sum of an operator's terms: all dimensions
    moved = _grown(measured, target, [float(sum(map(model.product_bytes, calls))) for calls in runs])
    calls = _grown(measured, target, [float(len(calls)) for calls in runs])
    return model.product_seconds(flops, moved, kind[0], gpu, kind[1]) + calls * model.LAUNCH
