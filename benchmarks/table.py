"""Records as markdown and figures."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.record import seconds, shape, spread


def markdown(record: dict[str, Any]) -> str:
    """All lines of a record, a table for each operator."""
    machine, ceilings = record["machine"], record["ceilings"]
    rates = ", ".join(
        f"{value / 1e9:,.0f} {'GB/s' if 'bytes' in name else 'GFLOP/s'} ({name.removesuffix('_per_s')})"
        for name, value in ceilings.items()
    )
    parts = [
        f"{machine['hardware']}, {machine['threads']} threads of {machine['cores']} cores, torch "
        f"{machine['versions'].get('torch')}, commit {machine['commit']}{'+' if machine['uncommitted'] else ''}, "
        f"{machine['date']}. Ceilings measured at the start: {rates}.",
        "Median (minimum - maximum) of the runs, all variants in turn. Factor: time of the variant over ours. Floor: "
        "the larger of operations and bytes over the ceilings. Memory: highest beyond what was there before.",
    ]
    for operator, lines in _by_operator(record).items():
        parts.append(f"### {operator}")
        for entry in lines:
            parts.append(_table(entry))
    return "\n\n".join(parts) + "\n"


def _by_operator(record: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for entry in record["lines"]:
        groups[entry["operator"]].append(entry)
    return groups


def _table(entry: dict[str, Any]) -> str:
    ours = entry["variants"][0]["median_s"]
    rows = [
        f"**{shape(entry['shape'])}**; floor {seconds(entry['floor_s'])} ({entry['floor_is']})",
        "",
        "| variant | time | factor | of the floor | memory | remark |",
        "|---|---|---|---|---|---|",
    ]
    for v in entry["variants"]:
        memory = f"{v['peak_bytes'] / 2**20:,.0f} MiB" if v["peak_bytes"] is not None else ""
        rows.append(
            f"| {v['name']} | {spread(v['seconds'])} | {v['median_s'] / ours:.2f} "
            f"| {entry['floor_s'] / v['median_s']:.0%} | {memory} | {v['remark']} |"
        )
    rows += [f"| {name} | | | | | {reason} |" for name, reason in entry["skipped"].items()]
    return "\n".join(rows)


def figures(record: dict[str, Any], folder: Path) -> list[Path]:
    """speed.svg (each variant against ours) and growth.svg (time against size), as far as the record has them."""
    import matplotlib as mpl

    mpl.use("agg")
    mpl.rcParams["svg.hashsalt"] = "ise_fast"  # the same numbers give the same file
    folder.mkdir(parents=True, exist_ok=True)
    return [path for path in (_speed(record, folder / "speed.svg"), _growth(record, folder / "growth.svg")) if path]


def _speed(record: dict[str, Any], path: Path) -> Path | None:
    from matplotlib import pyplot as plt

    entries = [e for e in record["lines"] if not e["axis"] and len(e["variants"]) > 1]
    if not entries:
        return None
    bars: list[tuple[str, str, float]] = []
    for entry in entries:
        ours = entry["variants"][0]["median_s"]
        for v in entry["variants"][1:]:
            bars.append((f"{entry['operator']} ({shape(entry['shape'])})", v["name"], v["median_s"] / ours))
    fig, ax = plt.subplots(figsize=(9, 0.28 * len(bars) + 1.2), layout="constrained")
    labels = [f"{name}  ·  {case}" for case, name, _ in bars]
    factors = [factor for *_, factor in bars]
    colours = ["#2b6cb0" if factor >= 1 else "#c05621" for factor in factors]
    ax.barh(range(len(bars)), factors, color=colours)
    ax.set_yticks(range(len(bars)), labels, fontsize=7)
    ax.invert_yaxis()
    ax.set_xscale("log")
    ax.axvline(1, color="black", linewidth=0.8)
    for row, factor in enumerate(factors):
        text = f" {factor:.2g}" if factor < 10 else f" {factor:.0f}"
        ax.annotate(text, (max(factor, 1), row), va="center", fontsize=7)
    ax.margins(x=0.1, y=0.01)
    ax.set_xlabel("time over ours (right of 1: ours is faster)")
    fig.savefig(path, metadata={"Date": None})
    plt.close(fig)
    return path


def _growth(record: dict[str, Any], path: Path) -> Path | None:
    from matplotlib import pyplot as plt

    curves: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for entry in record["lines"]:
        if entry["axis"]:
            point = (entry["shape"][entry["axis"]], entry["variants"][0]["median_s"])
            curves[entry["axis"]][entry["operator"]].append(point)
    if not curves:
        return None
    columns = min(3, len(curves))
    rows = -(-len(curves) // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(4.5 * columns, 4 * rows), layout="constrained", squeeze=False)
    for ax in axes.flat[len(curves) :]:
        ax.axis("off")
    for ax, (axis, operators) in zip(axes.flat, curves.items(), strict=False):
        for operator, points in operators.items():
            sizes, times = zip(*sorted(points), strict=True)
            ax.loglog(sizes, times, marker="o", markersize=3, label=operator)
        ax.set_xlabel(axis)
        ax.set_ylabel("seconds")
        ax.grid(alpha=0.3, which="both")
        ax.legend(fontsize=7)
    fig.savefig(path, metadata={"Date": None})
    plt.close(fig)
    return path
