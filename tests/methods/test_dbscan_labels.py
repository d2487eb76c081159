from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch.nn.functional import normalize

from ise_fast.engine.errors import NonFiniteError
from ise_fast.engine.features import check_features
from ise_fast.methods import PseudoLabels, cluster_centroids, eps_advice
from ise_fast.methods.dbscan_labels import DBSCANLabels, DBSCANSettings
from ise_fast.methods.eps_advice import advise_eps


def cluster(features: torch.Tensor, settings: DBSCANSettings) -> PseudoLabels:
    return DBSCANLabels(settings)(features, None, 0)


def test_groups_become_clusters(blobs: torch.Tensor) -> None:
    result = cluster(blobs, DBSCANSettings(k1=10, k2=2, eps=0.7))
    assert result.clusters == 8
    assert result.summary() == {"clusters": 8, "outliers": 0, "largest": 10, "smallest": 10}
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
    config = DBSCANSettings(k1=8, k2=2, eps=0.001)
    assert cluster(blobs, config).clusters < 8
    advice = advise_eps(blobs, 8, 2, 4)
    assert advice.eps is not None
    assert cluster(blobs, DBSCANSettings(k1=8, k2=2, eps=advice.eps)).clusters == 8
    values = list(advice.quantiles.values())
    assert values == sorted(values)
    assert f"try --eps {advice.eps:.2f}" in str(advice)


def test_advice_where_nothing_helps() -> None:
    points = torch.eye(6)
    advice = advise_eps(points, 1, 1, 4)
    assert advice.eps is None
    assert "no --eps below 1 gives clusters" in str(advice)


def test_not_finite_features_are_named(blobs: torch.Tensor) -> None:
    check_features(blobs, "features")
    blobs[3, 1] = torch.nan
    blobs[7, 0] = torch.inf
    with pytest.raises(NonFiniteError, match=r"features of epoch 2: 2 of 80 rows .* row 3"):
        check_features(blobs, "features of epoch 2")


def collapsed(kind: str, n: int, d: int = 32) -> torch.Tensor:
    """Equal rows, or rows without structure around one direction on which a few blank images lie."""
    generator = torch.Generator().manual_seed(2)
    centre, noise = torch.randn(1, d, generator=generator), torch.randn(n, d, generator=generator)
    if kind == "equal":
        return normalize(centre, dim=1).repeat(n, 1)
    x = normalize(normalize(noise, dim=1) + 2 * normalize(centre, dim=1), dim=1)
    x[::97] = normalize(centre, dim=1)
    return x


@pytest.mark.parametrize("n", [200, 900])
@pytest.mark.parametrize("kind", ["equal", "hubs"])
def test_advice_names_what_everybody_is_near_to(kind: str, n: int) -> None:
    text = str(advise_eps(collapsed(kind, n), 20, 6, 4))
    rows = "0, 1, 2" if kind == "equal" else "0, 97, 194"
    assert text.startswith(f"features have collapsed: rows {rows} are among the nearest of ")
    assert "try --eps" not in text
    assert "distance to the min_samples-th neighbour" in text


def test_advice_of_good_features_speaks_of_no_collapse(blobs: torch.Tensor) -> None:
    assert "collapsed" not in str(advise_eps(blobs.repeat_interleave(3, 0), 24, 6, 4))


def test_a_sample_of_rows_says_what_all_rows_say(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(1)
    centres = normalize(torch.randn(90, 32, generator=generator), dim=1)
    x = normalize(centres.repeat_interleave(10, 0) + 0.15 * torch.randn(900, 32, generator=generator), dim=1)
    everything = advise_eps(x, 20, 6, 4)
    monkeypatch.setattr(eps_advice, "SAMPLE", 300)
    sample = advise_eps(x, 20, 6, 4)
    assert sample.trials == everything.trials
    assert sample.quantiles != everything.quantiles
    for q, value in everything.quantiles.items():
        assert abs(sample.quantiles[q] - value) < 0.05


def test_radii_with_too_many_pairs_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    x = collapsed("random", 400)
    widest = max(advise_eps(x, 20, 6, 4).trials)
    for most in (30_000, 5_000, 1):
        monkeypatch.setattr(eps_advice, "MOST_PAIRS", most)
        trials = advise_eps(x, 20, 6, 4).trials
        assert max(trials, default=0) < widest
        widest = max(trials, default=0)
    assert "none tried" in str(advise_eps(x, 20, 6, 4))


# In a process of its own, which says what it took beyond the features and the libraries.
PEAK = """
import sys, torch
sys.path.insert(0, "tests/methods")
from test_dbscan_labels import collapsed
from ise_fast.methods.eps_advice import advise_eps

def peak():
    return next(int(line.split()[1]) >> 10 for line in open("/proc/self/status") if line.startswith("VmHWM"))

advise_eps(collapsed("random", 300), 30, 6, 4)
before = peak()
for kind in ("equal", "hubs"):
    advise_eps(collapsed(kind, 2500), 30, 6, 4)
    print(peak() - before)
"""


def test_advice_takes_little_memory_however_many_pairs_are_near() -> None:
    """The graph of all pairs of 2,500 rows takes 60 MB, sorting it 400 MB; 50,000 rows would take 400 times that."""
    run = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    assert max(int(megabytes) for megabytes in run.stdout.split()) < 70
