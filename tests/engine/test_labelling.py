"""Labels made by all processes together (of which one does here) are those of the first process alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ise_fast.engine.config import parse
from ise_fast.engine.errors import ClusteringError, NonFiniteError
from ise_fast.engine.labelling import Labelling
from ise_fast.engine.plan import make_plan
from ise_fast.sharded import Peers
from tests.pseudo_label_data import clustered

UnitRows = Callable[..., Tensor]


def labelling(*flags: str, tracklets: Tensor | None = None) -> Labelling:
    config = parse(["--preset", "synthetic", "-b", "8", "--num-instances", "2", "--min-samples", "2", *flags])
    return Labelling(config, make_plan(config), None, tracklets)


@pytest.mark.parametrize("flags", ["", "--k1 9 --k2 1", "--method cluster-contrast", "--labels kmeans --clusters 9"])
def test_the_same_labels_and_centroids(flags: str, unit_rows: UnitRows) -> None:
    label, x = labelling(*flags.split()), clustered(unit_rows, 120, 8)
    assert label.labeller.shares
    alone, together = label(x, 0, None), label.shared(x, Peers(), 0, None)
    assert together.labels.equal(alone.labels)
    assert alone.centroids is not None
    assert together.centroids is not None
    assert together.centroids.equal(alone.centroids)
    assert together.seconds.keys() == alone.seconds.keys()


def test_too_few_clusters_are_said_alike(unit_rows: UnitRows) -> None:
    x = unit_rows(60, 40)
    label = labelling("--eps", "0.1")
    errors = []
    for run in (lambda: label(x, 2, None), lambda: label.shared(x, Peers(), 2, None)):
        with pytest.raises(ClusteringError, match=r"^epoch 3: 0 clusters, 4 needed") as caught:
            run()
        errors.append(str(caught.value))
    assert errors[0] == errors[1]
    going_on = labelling("--eps", "0.1", "--on-few-clusters", "previous")
    previous = torch.arange(60) // 12
    alone, together = going_on(x, 1, previous), going_on.shared(x, Peers(), 1, previous)
    assert together.labels.equal(previous)
    assert alone.centroids is not None
    assert together.centroids is not None
    assert together.centroids.equal(alone.centroids)


def test_features_that_are_not_finite(unit_rows: UnitRows) -> None:
    x = unit_rows(60, 8)
    x[7] = torch.nan
    with pytest.raises(NonFiniteError, match=r"^features of process 0 at the start of epoch 1: 1 of 60 rows"):
        labelling().shared(x, Peers(), 0, None)


@pytest.mark.parametrize("flags", ["--distance cosine", "--labels self-paced"])
def test_other_labels_are_made_by_the_first_process(flags: str) -> None:
    assert not labelling(*flags.split()).labeller.shares


@pytest.mark.parametrize(("flags", "used"), [("", False), ("--tracklets merge", True), ("--tracklet-epochs 1", True)])
def test_tracklets_count_where_they_are_asked_for(flags: str, used: bool) -> None:
    """Known tracklets alone do not keep processes from labelling together."""
    assert (labelling(*flags.split(), tracklets=torch.zeros(8, dtype=torch.int64)).tracklets is not None) == used
