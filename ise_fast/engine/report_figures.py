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

from ise_fast.engine.report_data import NO_CAMERA, Array, EmbeddingPicture

Record = Mapping[str, Any]

INK, FAINT, GRID = "#1f2933", "#7b8794", "#e4e7eb"
BLUE, TEAL, ORANGE, PINK = "#3d5afe", "#00a488", "#f08a24", "#d6409f"
STAGES = ("#9db0ff", "#00a488", "#f5b83d", "#d6409f", "#3d5afe", "#b6c0cc", "#8c6d46")
PALETTE = ("#3d5afe", "#f08a24", "#00a488", "#e5484d", "#8e4ec6", "#8c6d46", "#d6409f", "#5f6b7a", "#a6b727", "#0ea5d8")
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
    return _curves([r["epoch"] for r in rated], lines, unit="%", top=100)


def pseudo_labels(history: Sequence[Record]) -> str:
    """Clusters and outliers over the epochs."""
    trained = [r for r in history if "clusters" in r]
    lines = [(key, colour, [r[key] for r in trained]) for key, colour in (("clusters", BLUE), ("outliers", ORANGE))]
    return _curves([r["epoch"] for r in trained], lines)


def losses(history: Sequence[Record]) -> str:
    """Mean losses of the epochs: the two parts of ISE's, or the baseline's only one."""
    trained = [r for r in history if "loss" in r]
    parts = [("contrastive", BLUE), ("label_preserving", PINK)]
    if not any("label_preserving" in r for r in trained):
        parts = [("loss", BLUE)]
    lines = [(key.replace("_", " "), colour, [r[key] for r in trained]) for key, colour in parts]
    return _curves([r["epoch"] for r in trained], lines)


def cluster_sizes(sizes: Array) -> str:
    """How many clusters have how many images."""
    with rc_context(STYLE):
        figure, axes = _figure(2.6)
        largest = int(sizes.max())
        width = max(1, -(-largest // 30))
        edges = np.arange(0, largest + 2 * width, width) + 0.5
        axes.hist(sizes, bins=edges.tolist(), color=BLUE, rwidth=0.86)
        median = float(np.median(sizes))
        axes.axvline(median, color=ORANGE, lw=1.5)
        axes.annotate(
            f"median {median:g}", (median, 1), (5, -2), xycoords=("data", "axes fraction"), textcoords="offset points",
            color=ORANGE, va="top",
        )  # fmt: skip
        axes.set_xlabel("images in a cluster")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        return _svg(figure)


def stage_colours(history: Sequence[Record]) -> dict[str, str]:
    """A colour for each timed stage, in the order in which they first appear."""
    names = list(dict.fromkeys(name for r in history for name in r.get("seconds", {})))
    return {name: STAGES[i % len(STAGES)] for i, name in enumerate(names)}


def stage_times(history: Sequence[Record]) -> str:
    """Seconds of each stage, stacked, an epoch a bar."""
    timed = [r for r in history if r.get("seconds")]
    epochs = np.array([r["epoch"] for r in timed])
    with rc_context(STYLE):
        figure, axes = _figure(1.9, width=10.6)
        bottom = np.zeros(len(timed))
        for name, colour in stage_colours(timed).items():
            seconds = np.array([r["seconds"].get(name, 0.0) for r in timed])
            axes.bar(epochs, seconds, 0.72, bottom, color=colour)
            bottom += seconds
        axes.set(xlabel="epoch", ylabel="seconds", xlim=(epochs[0] - 0.6, epochs[0] + max(9.6, len(epochs) - 0.4)))
        axes.xaxis.set_major_locator(MaxNLocator(20, integer=True))
        return _svg(figure)


def embedding(picture: EmbeddingPicture, by: str) -> str:
    """The points of the embedding, coloured by "group" or by "camera", as a PNG data address."""
    values = picture.groups if by == "group" else picture.cams
    kinds = np.unique(values)
    with rc_context(STYLE):
        figure = Figure(figsize=(5.2, 4.6), layout="constrained")
        axes = figure.add_subplot()
        for place, kind in enumerate(kinds):
            x, y = picture.points[values == kind].T
            marker = "o^sDvP"[place // 10 % 6]
            colour = FAINT if kind == NO_CAMERA else PALETTE[place % 10]
            axes.scatter(x, y, s=17, color=colour, marker=marker, alpha=0.82, linewidths=0)
        axes.set(xticks=[], yticks=[])  # t-SNE's axes have no unit: each may use the room it has
        axes.spines["bottom"].set_visible(False)
        return png_address(figure)


def png_address(figure: Figure) -> str:
    """A figure as a data address for <img>."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160, metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def jpeg_address(image: Array) -> str:
    """A picture [h, w, 3] uint8 as a data address for <img>."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _curves(
    x: Sequence[int], lines: Sequence[tuple[str, str, Sequence[float]]], *, unit: str = "", top: float | None = None
) -> str:
    """Lines that carry their names and last values at their ends, where the eye is, instead of a legend."""
    with rc_context(STYLE):
        figure, axes = _figure(2.6)
        for _, colour, y in lines:
            axes.plot(x, y, color=colour, solid_capstyle="round", marker="o", markersize=3 if len(x) < 30 else 0)
        highest = max((max(y) for *_, y in lines if len(y)), default=1.0)
        axes.set_ylim(0, min(top or np.inf, highest * 1.12) or 1)
        ends = [y[-1] if len(y) else 0.0 for *_, y in lines]
        for (label, colour, _), end, place in zip(lines, ends, _spread(ends, 0.085 * axes.get_ylim()[1]), strict=True):
            shown = f"{end:.1f}{unit}" if unit else f"{end:,.0f}" if isinstance(end, int) else f"{end:.2f}"
            axes.annotate(
                f"{label} {shown}", (1, place), (6, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
                color=colour, va="center", weight="bold", annotation_clip=False,
            )  # fmt: skip
        axes.set_xlabel("epoch")
        axes.margins(x=0.01)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        return _svg(figure)


def _spread(places: Sequence[float], gap: float) -> list[float]:
    """The places, pushed apart upwards until neighbours are at least `gap` apart."""
    result = list(places)
    order = sorted(range(len(result)), key=result.__getitem__)
    for below, above in pairwise(order):
        result[above] = max(result[above], result[below] + gap)
    return result


def _figure(height: float, width: float = 5.2) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]  # no XML declaration inside HTML
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' width="[\d.]+pt" height="[\d.]+pt"', ' width="100%"', text.replace("\n", " "), count=1)
    return re.sub(r"'DejaVu Sans'[^;\"]*", "inherit", text)
