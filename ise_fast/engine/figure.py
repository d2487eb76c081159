"""The figure of a run: retrieval quality and number of clusters over the epochs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def draw_curves(history: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw mAP and rank 1 (left) and clusters and outliers (right) over the epochs.

    Args:
        history: records of the epochs; epoch 0, if there, is the untrained network.
        path: picture file, its suffix chooses the format.
    """
    from matplotlib.figure import Figure  # no pyplot: no global state, no display

    figure = Figure(figsize=(10, 3.8), layout="constrained")
    quality, clusters = figure.subplots(1, 2)
    rated = [record for record in history if "mAP" in record]
    for key, label in (("mAP", "mAP"), ("rank1", "rank 1")):
        quality.plot([r["epoch"] for r in rated], [100 * r[key] for r in rated], marker="o", ms=3, label=label)
    quality.set(xlabel="epoch", ylabel="%", title="retrieval on the test split", ylim=(0, 100))
    trained = [record for record in history if "clusters" in record]
    for key in ("clusters", "outliers"):
        clusters.plot([r["epoch"] for r in trained], [r[key] for r in trained], marker="o", ms=3, label=key)
    clusters.set(xlabel="epoch", title="pseudo labels")
    clusters.set_ylim(bottom=0)
    for axes in (quality, clusters):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120)
