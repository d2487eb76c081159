from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from ise_fast.engine.config import ClusterConfig
from ise_fast.engine.errors import NonFiniteError
from ise_fast.engine.pseudo_labels import advise_eps, check_features, cluster, cluster_centroids


@pytest.fixture
def blobs() -> torch.Tensor:
    """Eight tight groups of ten unit rows."""
    generator = torch.Generator().manual_seed(0)
    centres = normalize(torch.randn(8, 32, generator=generator), dim=1)
    return normalize(centres.repeat_interleave(10, 0) + 0.05 * torch.randn(80, 32, generator=generator), dim=1)


def test_groups_become_clusters(blobs: torch.Tensor) -> None:
    result = cluster(blobs, ClusterConfig(k1=10, k2=2, eps=0.7))
    assert result.clusters == 8
    assert result.outliers == 0
    assert torch.equal(result.labels, torch.arange(8).repeat_interleave(10))
    assert torch.equal(result.sizes, torch.full((8,), 10))
    assert set(result.seconds) == {"jaccard", "dbscan", "centroids"}


def test_centroids_leave_outliers_out_and_are_exact(blobs: torch.Tensor) -> None:
    labels = torch.arange(8).repeat_interleave(10)
    labels[::10] = -1
    labels = labels[torch.randperm(80, generator=torch.Generator().manual_seed(1))]
    expected = torch.stack([normalize(blobs[labels == c].double().mean(0), dim=0) for c in range(8)])
    assert torch.allclose(cluster_centroids(blobs, labels).double(), expected, atol=1e-7, rtol=0)
    assert cluster_centroids(blobs, torch.full((80,), -1)).shape == (0, 32)


def test_advice_finds_the_radius(blobs: torch.Tensor) -> None:
    config = ClusterConfig(k1=8, k2=2, eps=0.001)
    assert cluster(blobs, config).clusters < 8
    advice = advise_eps(blobs, config)
    assert advice.eps is not None
    assert cluster(blobs, ClusterConfig(k1=8, k2=2, eps=advice.eps)).clusters == 8
    values = list(advice.quantiles.values())
    assert values == sorted(values)
    assert f"try --eps {advice.eps:.2f}" in str(advice)


def test_advice_where_nothing_helps() -> None:
    points = torch.eye(6)
    advice = advise_eps(points, ClusterConfig(k1=1, k2=1, eps=0.3, min_samples=4))
    assert advice.eps is None
    assert "no --eps below 1 gives clusters" in str(advice)


def test_not_finite_features_are_named(blobs: torch.Tensor) -> None:
    check_features(blobs, "features")
    blobs[3, 1] = torch.nan
    blobs[7, 0] = torch.inf
    with pytest.raises(NonFiniteError, match=r"features of epoch 2: 2 of 80 rows .* row 3"):
        check_features(blobs, "features of epoch 2")
