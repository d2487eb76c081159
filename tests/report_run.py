"""A run of two epochs, as the files that a report is made of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ise_fast.engine.report_data import Clusters, EmbeddingPicture, RankLists, ReportData, Statistics

CONFIG = {
    "method": "ise",
    "dataset": "synthetic",
    "arch": "small",
    "epochs": 2,
    "iters": 5,
    "batch_size": 8,
    "resume": None,
}


def epoch(number: int, **values: Any) -> dict[str, Any]:
    """The record of an epoch."""
    quality = {"mAP": 0.2 + 0.1 * number, "rank1": 0.3, "rank5": 0.4, "rank10": 0.5, "mINP": 0.1}
    if number == 0:
        return {"epoch": 0, **quality}
    record = {"epoch": number, "clusters": 10 + number, "outliers": 20, "smallest": 4, "largest": 31, "lr": 1e-3}
    record |= {"loss": 2.5, "contrastive": 2.0, "label_preserving": 0.7531, "degree": 0.1}
    found = {"identities": 9, "ARI": 0.512, "NMI": 0.733, "purity": 0.844, "precision": 0.655, "recall": 0.466}
    return {**record, "seconds": {"extract": 1.0, "train": 3.0}, "quality": found, **quality, **values}


def pixels(*shape: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, (*shape, 8, 4, 3), dtype=np.uint8)


def samples() -> ReportData:
    """Two rank lists, a picture of twelve points, two clusters and outliers, the statistics of three queries."""
    lists = RankLists(
        query_images=pixels(2), query_ids=np.array([7, 8]), query_cams=np.array([0, 1]), ap=np.array([0.123, 1.0]),
        matches=np.array([3, 1]), removed=np.array([2, 0]), images=pixels(2, 3),
        ids=np.array([[7, 9, 7], [8, 9, 0]]), cams=np.array([[1, 1, 2], [0, 0, 0]]),
        similarity=np.array([[0.9, 0.8, 0.7], [0.6, 0.5, 0.4]]), shown=np.array([3, 2]),
    )  # fmt: skip
    points = np.random.default_rng(0).standard_normal((12, 2)).astype(np.float32)
    picture = EmbeddingPicture(points, np.repeat([1, 2, 3], 4), np.tile([0, 1], 6), np.array(True), pixels(12))
    clusters = Clusters(
        np.array([5, 3]), np.array(4), np.array([0, -1]), pixels(2, 3), np.array([3, 2]),
        np.array([[4, 4, 5], [6, -1, -1]]), np.array([2, 0]),
    )  # fmt: skip
    statistics = Statistics(
        np.array(["a.jpg", "b.jpg", "c.jpg"]), np.array([0.123, 1.0, 0.5], dtype=np.float32), np.array([0.6, 0.9, 1.0]),
        np.linspace(-1, 1, 5), np.array([[0, 0, 1, 3], [0, 0, 0, 2], [0, 1, 1, 0], [0, 5, 4, 0]]), np.array([0, 1]),
        np.array([[np.nan, 0.25], [0.75, np.nan]]),
    )  # fmt: skip
    return ReportData(lists, picture, clusters, statistics)


def write_run(folder: Path, **settings: Any) -> Path:
    """Write the files of a run and return its folder."""
    folder.mkdir()
    history = [epoch(0), epoch(1, mAP=0.55), epoch(2)]
    (folder / "config.yaml").write_text(yaml.safe_dump({**CONFIG, **settings}))
    environment = {"started": "2026-01-02T03:04", "torch": "2.11", "cpu": {"count": 2}}
    (folder / "environment.json").write_text(json.dumps(environment))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in history))
    samples().save(folder / "report.npz")
    return folder
