"""Infomap as a source of labels: against the published partition, and without its package."""

from __future__ import annotations

import pytest
import torch
from golden_data import load

from ise_fast.methods.infomap_labels import InfomapLabels, InfomapSettings


def test_labels_of_the_published_code() -> None:
    pytest.importorskip("infomap")
    g = load("method_infomap")
    assert g["stable"]
    settings = InfomapSettings(g["k1"], g["min_similarity"], g["largest_outlier_group"])
    labels = InfomapLabels(settings, seed=1)
    result = labels(g["features"], None, 0)
    ours, published = result.labels, g["labels"]
    assert (ours == -1).equal(published == -1)
    kept = ours >= 0
    same = [names[kept][:, None] == names[kept] for names in (ours, published)]
    assert same[0].equal(same[1])
    assert result.figures["codelength"] <= 1.02 * g["codelength"]
    assert result.centroids is not None
    assert len(result.centroids) == int(ours.max()) + 1
    assert torch.equal(labels(g["features"], None, 3).labels, ours)


def test_advice_says_how_far_neighbours_are() -> None:
    labels = InfomapLabels(InfomapSettings(neighbours=3), seed=1)
    rows = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.8, -0.6], [0.6, 0.8]])
    assert "have their neighbour 3 at a cosine of at most 0.60" in labels.advice(rows)
