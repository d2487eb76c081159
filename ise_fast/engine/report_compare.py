"""Two runs side by side: curves in one figure, the settings that differ, and what became of each query."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.ticker import MaxNLocator

from ise_fast.engine import report_figures as draw
from ise_fast.engine import report_rows as rows
from ise_fast.engine.report import Run, open_run, render, write_page
from ise_fast.engine.report_data import Array, Statistics

CURVES = {"mAP": "mAP", "rank1": "rank-1", "clusters": "clusters", "outliers": "outliers", "loss": "loss"}
EXTREMES = 8  # queries listed at either end
PLACES = ("logs_dir", "data_dir", "cache_dir", "resume", "workers", "progress", "quiet")  # change nothing in a run


def write_comparison(first: Path, second: Path, output: Path | None = None) -> Path:
    """Write the page of two runs.

    Args:
        first: folder of a run.
        second: folder of the run that it is compared with.
        output: the page; first / compare-NAME.html if left out, with the name of the second folder.

    Returns:
        The path of the page.

    Raises:
        ValueError: if a folder holds no run, or a file of it is damaged.
        OSError: if the page cannot be written.
    """
    from markupsafe import Markup

    runs = [_named(open_run(folder), mark) for folder, mark in ((first, "A"), (second, "B"))]
    queries = _queries(runs[0].data.statistics, runs[1].data.statistics)
    page = render(
        "report_compare.html.j2",
        title=f"{runs[0].name} and {runs[1].name}",
        names=[run.name for run in runs],
        results=_results(runs),
        settings=differing(runs[0].config, runs[1].config),
        figures=[(name, Markup(picture)) for name, picture in _curves(runs)],
        queries=None if queries is None else {**queries, "figure": Markup(_scatter(queries["pairs"]))},
    )
    return write_page(page, output or first / f"compare-{second.resolve().name}.html")


def differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Settings that are not the same, as (name, value, value)."""
    ours, theirs = (rows.readable({k: v for k, v in run.items() if k not in PLACES}) for run in (first, second))
    missing = "not set"
    names = [*ours, *(name for name in theirs if name not in ours)]
    values = [(name, ours.get(name, missing), theirs.get(name, missing)) for name in names]
    return [(name, a, b) for name, a, b in values if a != b]


def _named(run: Run, mark: str) -> Run:
    return run._replace(name=f"{mark}: {run.name}")


def _results(runs: list[Run]) -> list[dict[str, Any]]:
    """The last rated epoch of each run, and B minus A."""
    last = [run.summary.get("last") for run in runs]
    found = [
        {"name": run.name, "epoch": record["epoch"], "record": record, "latex": rows.latex_row(run.name[3:], record)}
        for run, record in zip(runs, last, strict=True)
        if record is not None and "mAP" in record
    ]
    if len(found) == 2:
        change = {key: found[1]["record"][key] - found[0]["record"][key] for key in rows.MEASURES}
        found.append({"name": "B - A", "epoch": "", "record": change, "latex": None})
    return found


def _curves(runs: list[Run]) -> list[tuple[str, str]]:
    """A figure for each quantity that both runs have, over the epochs."""
    figures = []
    for key, name in CURVES.items():
        found = [[record for record in run.history if key in record] for run in runs]
        if not all(found):
            continue
        scale = 100 if key in rows.MEASURES else 1
        with rc_context(draw.STYLE):
            figure, axes = draw.canvas(2.6)
            for run, records, colour in zip(runs, found, (draw.BLUE, draw.ORANGE), strict=True):
                values = [scale * record[key] for record in records]
                axes.plot([record["epoch"] for record in records], values, color=colour, label=run.name[:40])
            axes.set_ylim(0, 1.25 * axes.get_ylim()[1])  # room for the words
            axes.legend(frameon=False, labelcolor="linecolor", fontsize=9, loc="upper left", ncols=2)
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
            figures.append((name, draw.svg(figure, f"{name} of both runs over the epochs")))
    return figures


def _queries(first: Statistics | None, second: Statistics | None) -> dict[str, Any] | None:
    """Average precision of each query that both runs have, matched by file name."""
    if first is None or second is None:
        return None
    names, ours, theirs = np.intersect1d(first.names, second.names, return_indices=True)
    if not len(names):
        return None
    pairs = np.stack([first.ap[ours], second.ap[theirs]], axis=1)
    change = pairs[:, 1] - pairs[:, 0]
    order = np.argsort(change, kind="stable")
    listed: list[dict[str, Any]] = [
        {"name": str(names[i]), "first": float(pairs[i, 0]), "second": float(pairs[i, 1])} for i in order
    ]
    worse = [row for row in listed[:EXTREMES] if row["second"] < row["first"]]
    better = [row for row in listed[::-1][:EXTREMES] if row["second"] > row["first"]]
    counts = {"count": len(names), "better": int((change > 0).sum()), "worse": int((change < 0).sum())}
    return {"pairs": pairs, "tables": [("Worse in B", worse), ("Better in B", better)], **counts}


def _scatter(pairs: Array) -> str:
    """Queries by their average precision in A and in B; at most 2,000 of them."""
    picked = pairs[np.unique(np.linspace(0, len(pairs) - 1, 2000).round().astype(int))]
    with rc_context(draw.STYLE):
        figure, axes = draw.canvas(3.6)
        axes.plot([0, 100], [0, 100], color=draw.FAINT, lw=1)
        axes.plot(100 * picked[:, 0], 100 * picked[:, 1], "o", color=draw.BLUE, ms=3.5, alpha=0.55, mew=0)
        axes.set(xlabel="AP in A, per cent", ylabel="AP in B, per cent", xlim=(-2, 102), ylim=(-2, 102))
        return draw.svg(figure, "average precision of each query in both runs; above the line: better in B")
