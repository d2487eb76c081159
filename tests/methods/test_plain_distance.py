"""DBSCAN on the cosine and the Euclidean distance."""

from __future__ import annotations

import pytest
import torch

from ise_fast import ops
from ise_fast.engine.config import parse
from ise_fast.engine.errors import UsageError
from ise_fast.methods import NoLabels
from ise_fast.methods.dbscan_labels import DBSCANLabels, DBSCANSettings
from ise_fast.methods.plain_distance import advise_radius, estimate_pairs
from tests.methods.test_dbscan_labels import collapsed

METRICS = ("cosine", "euclidean")


@pytest.mark.parametrize("metric", METRICS)
def test_advice_finds_the_radius(metric: str, blobs: torch.Tensor) -> None:
    poor = DBSCANLabels(DBSCANSettings(distance=metric, eps=0.001))  # type: ignore[arg-type]
    assert poor(blobs, None, 0).clusters == 0
    advice = advise_radius(blobs, metric, 4)
    assert f"try --eps {advice.eps:.2f}" in poor.advice(blobs)
    assert advice.eps is not None
    good = DBSCANLabels(DBSCANSettings(distance=metric, eps=advice.eps))(blobs, None, 0)  # type: ignore[arg-type]
    assert good.clusters == advice.trials[advice.eps] == max(advice.trials.values())
    assert good.clusters >= 8
    assert set(good.seconds) == {metric, "dbscan", "centroids"}
    # One distance is a function of the other.
    same = {"cosine": ("euclidean", (2 * advice.eps) ** 0.5), "euclidean": ("cosine", advice.eps**2 / 2)}[metric]
    other = DBSCANLabels(DBSCANSettings(distance=same[0], eps=same[1]))(blobs, None, 0)  # type: ignore[arg-type]
    assert torch.equal(good.labels, other.labels)


@pytest.mark.parametrize("metric", METRICS)
def test_pairs_are_counted_before_they_are_stored(metric: str, blobs: torch.Tensor) -> None:
    exact = ops.radius_graph(blobs, 0.4, metric=metric).nnz
    assert estimate_pairs(blobs, 0.4, metric) == exact
    labels = DBSCANLabels(DBSCANSettings(distance=metric, eps=0.4, max_pairs=exact - 1))  # type: ignore[arg-type]
    with pytest.raises(NoLabels, match=f"at most {exact - 1} pairs within eps = 0.4, got about {exact}") as caught:
        labels(blobs, None, 0)
    assert "by quantile" in caught.value.advice
    DBSCANLabels(DBSCANSettings(distance=metric, eps=0.4, max_pairs=exact))(blobs, None, 0)  # type: ignore[arg-type]


def test_advice_where_nothing_helps() -> None:
    assert "no --eps below 2 gives clusters" in str(advise_radius(torch.eye(6)[:3], "cosine", 4))
    assert "none tried" in str(advise_radius(collapsed("equal", 50), "cosine", 4))


def test_each_distance_has_its_range() -> None:
    assert parse(["--distance", "euclidean", "--eps", "1.2"]).settings["eps"] == 1.2
    for words in ("--eps 1.2", "--eps 2.1 --distance cosine", "--distance nope"):
        with pytest.raises(UsageError, match=words.split()[0] if "nope" not in words else "distance"):
            parse(words.split())
