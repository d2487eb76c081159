"""The figures of the report, drawn with matplotlib and returned as text that goes straight into the page."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ise_fast.engine.report_data import PAIRS, Array, Statistics

Record = Mapping[str, Any]

# Matplotlib needs colours; in the page they are the variables of its style sheet, which has a light and a dark set.
INK, FAINT, GRID = "#1f2933", "#5b6876", "#e4e7eb"
BLUE, TEAL, ORANGE, PINK = "#3451e0", "#007a66", "#a85a00", "#b8278a"
VARIABLES = {
    INK: "currentColor", FAINT: "var(--faint)", GRID: "var(--line)", BLUE: "var(--blue)", TEAL: "var(--teal)",
    ORANGE: "var(--orange)", PINK: "var(--pink)",
}  # fmt: skip
STAGES = ("#8b9dff", "#00a488", "#d99a1c", "#d6409f", "#5468f0", "#8d99a6", "#9a7a52")
STYLE: Any = {  # matplotlib 3.11 spells out every key it knows
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 2,
    "svg.fonttype": "none",  # text stays text: sharp, selectable, in the font of the page
    "svg.hashsalt": "ise_fast",  # the same run gives the same file
}


def quality(history: Sequence[Record]) -> str:
    """mAP and rank 1 over the epochs, in per cent."""
    rated = [r for r in history if "mAP" in r]
    lines = [("mAP", BLUE, [100 * r["mAP"] for r in rated]), ("rank-1", TEAL, [100 * r["rank1"] for r in rated])]
    return curves([r["epoch"] for r in rated], lines, "mAP and rank-1 over the epochs", unit="%", top=100)


def pseudo_labels(history: Sequence[Record]) -> str:
    """Clusters and outliers over the epochs."""
    trained = [r for r in history if "clusters" in r]
    lines = [(key, colour, [r[key] for r in trained]) for key, colour in (("clusters", BLUE), ("outliers", ORANGE))]
    return curves([r["epoch"] for r in trained], lines, "clusters and outliers over the epochs")


def cluster_sizes(sizes: Array) -> str:
    """How many clusters have how many images."""
    with rc_context(STYLE):
        figure, axes = canvas(2.6)
        largest = int(sizes.max())
        width = max(1, -(-largest // 30))
        edges = np.arange(0, largest + 2 * width, width) + 0.5
        counts, *_ = axes.hist(sizes, bins=edges.tolist(), color=BLUE, rwidth=0.86)
        axes.set_ylim(0, 1.18 * float(np.max(counts)))  # room for the words
        median = float(np.median(sizes))
        axes.axvline(median, color=ORANGE, lw=1.5)
        axes.annotate(
            f"median {median:g}", (median, 1), (5, -2), xycoords=("data", "axes fraction"), textcoords="offset points",
            color=ORANGE, va="top",
        )  # fmt: skip
        axes.set_xlabel("images in a cluster")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        return svg(figure, "number of clusters by size")


def stage_colours(history: Sequence[Record]) -> dict[str, str]:
    """A colour for each timed stage, in the order in which they first appear."""
    names = list(dict.fromkeys(name for r in history for name in r.get("seconds", {})))
    return {name: STAGES[i % len(STAGES)] for i, name in enumerate(names)}


def stage_times(history: Sequence[Record]) -> str:
    """Seconds of each stage, stacked, an epoch a bar."""
    timed = [r for r in history if r.get("seconds")]
    epochs = np.array([r["epoch"] for r in timed])
    with rc_context(STYLE):
        figure, axes = canvas(1.9, width=10.6)
        bottom = np.zeros(len(timed))
        for name, colour in stage_colours(timed).items():
            seconds = np.array([r["seconds"].get(name, 0.0) for r in timed])
            axes.bar(epochs, seconds, 0.72, bottom, color=colour)
            bottom += seconds
        axes.set(xlabel="epoch", ylabel="seconds", xlim=(epochs[0] - 0.6, epochs[0] + max(9.6, len(epochs) - 0.4)))
        axes.xaxis.set_major_locator(MaxNLocator(20, integer=True))
        return svg(figure, "seconds of each stage by epoch")


def cmc(curve: Array) -> str:
    """Share of queries with a match among the first r images, for r = 1, 2, ..."""
    with rc_context(STYLE):
        figure, axes = canvas(2.6)
        axes.plot(np.arange(1, len(curve) + 1), 100 * curve, color=TEAL)
        for rank in (1, 10):
            if rank <= len(curve):
                axes.plot([rank], [100 * curve[rank - 1]], "o", color=TEAL, ms=5)
                axes.annotate(
                    f"rank-{rank} {100 * curve[rank - 1]:.1f}%", (rank, 100 * curve[rank - 1]), (8, -12),
                    textcoords="offset points", color=TEAL, weight="bold",
                )  # fmt: skip
        axes.set(xlabel="rank", ylim=(0, 104), xticks=[1, *range(10, len(curve) + 1, 10)])
        axes.yaxis.set_major_locator(MaxNLocator(5))
        return svg(figure, "CMC curve: queries with a match among the first images, in per cent")


def distances(statistics: Statistics) -> str:
    """How the cosine of pairs is spread, for each kind of pair; the area below each line is one."""
    styles = ((TEAL, "-"), (TEAL, ":"), (ORANGE, ":"), (ORANGE, "-"))
    used = np.flatnonzero(statistics.counts.sum(axis=0))
    first, last = max(0, used[0] - 1), min(statistics.counts.shape[1], used[-1] + 2)
    with rc_context(STYLE):
        figure, axes = canvas(2.6)
        for name, (colour, line), counts in zip(PAIRS, styles, statistics.counts, strict=True):
            if not counts.sum():
                continue
            density = counts / (counts.sum() * np.diff(statistics.edges))
            middle = (statistics.edges[1:] + statistics.edges[:-1]) / 2
            axes.plot(middle[first:last], density[first:last], color=colour, ls=line, lw=1.8, label=name)
        axes.legend(frameon=False, labelcolor="linecolor", fontsize=8, loc="upper left", handlelength=1.4)
        axes.set(xlabel="cosine", yticks=[])
        axes.set_ylim(0, 1.45 * axes.get_ylim()[1])  # room for the words
        return svg(figure, "density of the cosine for pairs of the same and of other identities and cameras")


def jpeg_address(image: Array, quality: int = 88) -> str:
    """A picture [h, w, 3] uint8 as a data address for <img>."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def curves(
    x: Sequence[int],
    lines: Sequence[tuple[str, str, Sequence[float]]],
    title: str,
    *,
    unit: str = "",
    top: float | None = None,
) -> str:
    """Lines that carry their names and last values at their ends, where the eye is, instead of a legend."""
    with rc_context(STYLE):
        figure, axes = canvas(2.6)
        for _, colour, y in lines:
            axes.plot(x, y, color=colour, solid_capstyle="round", marker="o", markersize=3 if len(x) < 30 else 0)
        highest = max((max(y) for *_, y in lines if len(y)), default=1.0)
        axes.set_ylim(0, min(top or np.inf, highest * 1.12) or 1)
        ends = [y[-1] if len(y) else 0.0 for *_, y in lines]
        for (label, colour, _), end, place in zip(lines, ends, spread(ends, 0.085 * axes.get_ylim()[1]), strict=True):
            shown = f"{end:.1f}{unit}" if unit else f"{end:,.0f}" if isinstance(end, int) else f"{end:.2f}"
            axes.annotate(
                f"{label} {shown}", (1, place), (6, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
                color=colour, va="center", weight="bold", annotation_clip=False,
            )  # fmt: skip
        axes.set_xlabel("epoch")
        axes.margins(x=0.01)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        return svg(figure, title)


def spread(places: Sequence[float], gap: float) -> list[float]:
    """The places, pushed apart upwards until neighbours are at least `gap` apart."""
    result = list(places)
    order = sorted(range(len(result)), key=result.__getitem__)
    for below, above in pairwise(order):
        result[above] = max(result[above], result[below] + gap)
    return result


def canvas(height: float, width: float = 5.2) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def svg(figure: Figure, title: str) -> str:
    """The figure as text, with a name for those who do not see it, and in the colours of the page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]  # no XML declaration inside HTML
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' width="[\d.]+pt" height="[\d.]+pt"', ' width="100%"', text.replace("\n", " "), count=1)
    text = re.sub(r"<svg([^>]*)>", rf'<svg\1 role="img" aria-label="{title}"><title>{title}</title>', text, count=1)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, variable)
    return re.sub(r"'DejaVu Sans'[^;\"]*", "inherit", text)
