"""A run's numbers as JSON, and two runs compared."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from benchmarks.measure import Case, Timing


def line(case: Case, timings: list[Timing], ceilings: dict[str, float]) -> dict[str, Any]:
    """One case with its timings and its floor as plain data."""
    rate = ceilings.get("tensor_flops_per_s", ceilings["flops_per_s"])
    arithmetic, traffic = case.flops / rate, case.bytes / ceilings["bytes_per_s"]
    return {
        "operator": case.operator,
        "shape": case.shape,
        "axis": case.axis,
        "floor_s": max(arithmetic, traffic),
        "floor_is": "arithmetic" if arithmetic >= traffic else "memory",
        "variants": [
            {"name": t.name, "seconds": t.seconds, "median_s": t.median, "peak_bytes": t.peak_bytes, "remark": t.remark}
            for t in timings
        ],
        "skipped": case.skipped,
    }


def save(path: Path, record: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")


def load(path: Path) -> dict[str, Any]:
    """Raises ValueError if the file is not a record of this program."""
    record = json.loads(path.read_text())
    if not isinstance(record, dict) or "lines" not in record:
        raise ValueError(f"{path}: expected a record written by 'python -m benchmarks'")
    return record


def compare(old: dict[str, Any], new: dict[str, Any]) -> str:
    """A markdown table of what both records hold: medians and their ratio; "~" where the two spreads overlap."""
    before = dict(_variants(old))
    rows = ["| case | variant | before | after | after / before |", "|---|---|---|---|---|"]
    for (operator, shape, name), variant in _variants(new):
        if (other := before.get((operator, shape, name))) is None:
            continue
        ratio = variant["median_s"] / other["median_s"]
        overlap = min(variant["seconds"]) <= max(other["seconds"]) and min(other["seconds"]) <= max(variant["seconds"])
        rows.append(
            f"| {operator} {shape} | {name} | {seconds(other['median_s'])} | {seconds(variant['median_s'])} "
            f"| {ratio:.2f}{' ~' if overlap else ''} |"
        )
    return "\n".join(rows)


def _variants(record: dict[str, Any]) -> list[tuple[tuple[str, str, str], dict[str, Any]]]:
    return [((e["operator"], shape(e["shape"]), v["name"]), v) for e in record["lines"] for v in e["variants"]]


def shape(sizes: dict[str, float]) -> str:
    return ", ".join(f"{name} = {value:,}" for name, value in sizes.items())


def seconds(value: float) -> str:
    """With a unit, three digits."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if value * factor >= 1:
            return f"{value * factor:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"


def spread(values: list[float]) -> str:
    """Median with minimum and maximum."""
    median = seconds(statistics.median(values))
    return f"{median} ({seconds(min(values))} - {seconds(max(values))})" if len(values) > 1 else f"{median} (one run)"
