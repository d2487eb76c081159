"""What the report shows of the method: losses by part, agreement of its labels with the identities, its own figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ise_fast.engine.report_figures import BLUE, ORANGE, PINK, STYLE, TEAL, curves, svg
from ise_fast.engine.report_rows import MEASURES
from ise_fast.methods import METHODS

Record = Mapping[str, Any]
COLOURS = (BLUE, PINK, TEAL, ORANGE)
# What every method's record has.
COMMON = {"epoch", "clusters", "outliers", "largest", "smallest", "lr", "loss", *MEASURES}
AGREEMENT = {"ARI": BLUE, "NMI": TEAL, "purity": PINK, "precision": ORANGE, "recall": "#8d99a6"}
MOST = 4  # small figures in a row


def loss_parts(method: str) -> tuple[str, ...]:
    """Names of the parts of a method's loss, where it is a known one."""
    objective = METHODS[method].objective if method in METHODS else None
    return tuple(getattr(objective, "parts", ())) or ("contrastive", "label_preserving")


def losses(history: Sequence[Record], method: str) -> str:
    """Mean losses of the epochs: the parts where there are several, or the whole."""
    trained = [r for r in history if "loss" in r]
    parts = [name for name in (*loss_parts(method), "spread") if all(name in r for r in trained)]
    lines = [
        (name.replace("_", " "), colour, [r[name] for r in trained])
        for name, colour in zip(parts[: len(COLOURS)] or ["loss"], COLOURS, strict=False)
    ]
    return curves([r["epoch"] for r in trained], lines, "losses over the epochs")


def agreement(history: Sequence[Record]) -> str | None:
    """How the labels agree with the identities; None where these are not known."""
    known = [r for r in history if r.get("quality")]
    if not known:
        return None
    lines = [(name, colour, [float(r["quality"][name]) for r in known]) for name, colour in AGREEMENT.items()]
    return curves([r["epoch"] for r in known], lines, "agreement of pseudo labels and identities", top=1.0)


def own_figures(history: Sequence[Record], method: str) -> str | None:
    """The method's and its labels' own numbers, such as a threshold; a small figure each, None if there are none."""
    trained = [r for r in history if "loss" in r]
    taken = COMMON | {*loss_parts(method), "spread"}
    names = [key for key, value in (trained[-1] if trained else {}).items() if key not in taken and _is_number(value)]
    if not names:
        return None
    shown = names[:MOST]
    with rc_context(STYLE):
        figure = Figure(figsize=(10.6, 1.9), layout="constrained")
        places = figure.subplots(1, MOST)
        for axes, name, colour in zip(places, shown, COLOURS, strict=False):
            given = [r for r in trained if name in r]  # not in an epoch that goes on with older labels
            axes.plot([r["epoch"] for r in given], [r[name] for r in given], color=colour, marker="o", markersize=3)
            axes.set_title(name.replace("_", " "), color=colour, fontsize=9, loc="left")
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(4))
        for axes in places[len(shown) :]:
            axes.set_axis_off()
        return svg(figure, f"{', '.join(name.replace('_', ' ') for name in shown)} over the epochs")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
