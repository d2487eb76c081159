from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from ise_fast.methods import cluster_centroids
from ise_fast.methods.kmeans_labels import KMeansLabels, KMeansSettings


def blobs(per: int = 10) -> torch.Tensor:
    """Six tight groups of unit rows, one after the other."""
    generator = torch.Generator().manual_seed(0)
    centres = normalize(torch.randn(6, 16, generator=generator), dim=1).repeat_interleave(per, 0)
    return normalize(centres + 0.05 * torch.randn(6 * per, 16, generator=generator), dim=1)


def test_groups_become_clusters() -> None:
    x = blobs()
    result = KMeansLabels(KMeansSettings(clusters=6), 1)(x, None, 0)
    assert result.summary() == {"clusters": 6, "outliers": 0, "largest": 10, "smallest": 10}
    assert torch.equal(result.labels.view(6, 10), result.labels.view(6, 10)[:, :1].expand(6, 10))
    assert result.centroids is not None
    assert torch.equal(result.centroids, cluster_centroids(x, result.labels))
    assert set(result.figures) == set(KMeansLabels.figures)


def test_labels_follow_from_seed_and_epoch() -> None:
    x = normalize(torch.randn(200, 8, generator=torch.Generator().manual_seed(3)), dim=1)

    def labels(seed: int, epoch: int) -> list[int]:
        found: list[int] = KMeansLabels(KMeansSettings(clusters=12), seed)(x, None, epoch).labels.tolist()
        return found

    assert labels(1, 4) == labels(1, 4)
    assert labels(1, 4) != labels(1, 5)
    assert labels(1, 4) != labels(2, 4)


def test_a_warm_start_goes_on_from_the_last_centres() -> None:
    x = normalize(torch.randn(200, 8, generator=torch.Generator().manual_seed(3)), dim=1)
    first = KMeansLabels(KMeansSettings(clusters=12, warm_start=True), 1)
    before = first(x, None, 0)
    resumed = KMeansLabels(first.settings, 1)
    resumed.load_state_dict(first.state_dict())
    assert first(x, None, 1).figures["steps"] == 2 < before.figures["steps"]  # assigned once, and nothing changed
    after = resumed(x, None, 1)
    assert after.figures["steps"] == 2
    assert torch.equal(after.labels, before.labels)
    cold = KMeansLabels(KMeansSettings(clusters=12), 1)
    cold(x, None, 0)
    assert cold.state_dict() == {"centres": None}


def test_fewer_different_rows_than_clusters() -> None:
    """Rows that are all the same: clusters without rows take some, and all labels stay in use."""
    result = KMeansLabels(KMeansSettings(clusters=4), 1)(blobs()[:1].repeat(9, 1), None, 0)
    assert result.labels.unique().tolist() == list(range(result.clusters))
    assert result.centroids is not None
    assert result.centroids.isfinite().all()


def test_more_clusters_than_images_are_refused() -> None:
    labels = KMeansLabels(KMeansSettings(clusters=81), 1)
    with pytest.raises(ValueError, match="--clusters: expected at most the number of training images, 80, got 81"):
        labels.check(80)
    labels.check(81)
    assert "asked for 81" in labels.advice(blobs())
    assert KMeansLabels(KMeansSettings(), 1)(blobs(4), None, 0).clusters == 24
