"""Reference support samples against the published numbers, and the rules that the numbers do not show."""

from __future__ import annotations

import math

import pytest
import torch
from golden_data import load, names

from ise_fast.reference import interpolation_degree, nearest_centroids, support_samples


@pytest.mark.parametrize("name", names("head"))
def test_golden(name: str) -> None:
    g = load(name)
    found = nearest_centroids(g["features"], g["memory_before"], g["labels"], g["topk"])
    assert torch.equal(found.indices, g["nearest"])
    degree = interpolation_degree(g["progress"])
    assert degree == pytest.approx(g["effective_lambda"], abs=1e-15)
    supports = support_samples(g["features"], g["memory_before"], g["labels"], g["nearest"], degree)
    torch.testing.assert_close(supports.flatten(0, 1), g["supports"], rtol=0, atol=1e-7)


def test_own_centroid_excluded_and_ties_to_lowest_index() -> None:
    centroids = torch.eye(4)[[0, 1, 0, 1, 2]]  # 0 = 2 and 1 = 3
    features = torch.tensor([[1.0, 0, 0, 0], [0, 0, 1, 0]])
    found = nearest_centroids(features, centroids, torch.tensor([0, 4]), k=4)
    assert found.indices.tolist() == [[2, 1, 3, 4], [0, 1, 2, 3]]
    assert found.similarity.tolist() == [[1, 0, 0, 0], [0, 0, 0, 0]]


def test_half_precision_and_strides() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(8, 6, generator=generator).half()
    centroids = torch.randn(5, 6, generator=generator)
    labels = torch.arange(8) % 5
    wide = torch.zeros(8, 12, dtype=torch.half)
    wide[:, ::2] = features
    expected = nearest_centroids(features.float(), centroids, labels, 2)
    assert all(map(torch.equal, nearest_centroids(wide[:, ::2], centroids, labels, 2), expected))


def test_empty_batch() -> None:
    found = nearest_centroids(torch.zeros(0, 3), torch.eye(3), torch.zeros(0, dtype=torch.int64), k=2)
    assert found.indices.shape == found.similarity.shape == (0, 2)


def test_support_gradient() -> None:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    centroids = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    labels, nearest = torch.tensor([0, 2, 2]), torch.tensor([[1, 2], [0, 1], [3, 0]])
    assert torch.autograd.gradcheck(lambda f: support_samples(f, centroids, labels, nearest, 0.25), features)


def test_degree_curve() -> None:
    assert interpolation_degree(0) == 0
    assert interpolation_degree(1) == pytest.approx(0.25)
    assert interpolation_degree(0.5, base=1) == pytest.approx(math.log((math.e - 1) / 2 + 1))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"features": torch.zeros(4)}, ValueError, r"features: expected 2 dimensions, got shape \(4,\)"),
        ({"features": torch.zeros(2, 4, dtype=torch.int32)}, TypeError, "features: expected dtype float32 .* int32"),
        ({"features": torch.tensor([[1.0, 0], [0, math.nan]])}, ValueError, "features: expected finite .* row 1"),
        ({"features": torch.zeros(2, 0)}, ValueError, "features: expected at least one column"),
        ({"features": [[1.0]]}, TypeError, "features: expected a torch tensor, got list"),
        ({"centroids": torch.zeros(3, 5)}, ValueError, "centroids: expected 2 columns as in features"),
        ({"centroids": torch.zeros(3, 2, dtype=torch.float64)}, TypeError, "centroids: expected the precision"),
        ({"labels": torch.tensor([0, 3])}, ValueError, r"labels: expected values in \[0, 3\), got 3"),
        ({"labels": torch.tensor([-1, 0])}, ValueError, r"labels: expected values in \[0, 3\), got -1"),
        ({"labels": torch.tensor([0])}, ValueError, "labels: expected one label for each of the 2 rows of features"),
        ({"labels": torch.zeros(2)}, TypeError, "labels: expected dtype int64, got float32"),
        ({"k": 0}, ValueError, r"k: expected an integer in \[1, 2\].*got 0"),
        ({"k": 3}, ValueError, r"k: expected an integer in \[1, 2\].*got 3"),
        ({"k": 1.0}, TypeError, "k: expected an integer, got 1.0"),
    ],
)
def test_nearest_bad_input(change: dict[str, object], error: type[Exception], message: str) -> None:
    good = {"features": torch.eye(2), "centroids": torch.ones(3, 2), "labels": torch.tensor([0, 1]), "k": 1}
    nearest_centroids(**good)
    with pytest.raises(error, match=f"^{message}"):
        nearest_centroids(**good | change)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"degree": 1.5}, ValueError, r"degree: expected a finite number in \[0, 1\], got 1.5"),
        ({"degree": math.nan}, ValueError, r"degree: expected a finite number in \[0, 1\], got nan"),
        ({"degree": "0.1"}, TypeError, "degree: expected a number, got '0.1'"),
        ({"nearest": torch.tensor([[3], [0]])}, ValueError, r"nearest: expected values in \[0, 3\), got 3"),
        ({"nearest": torch.tensor([[1]])}, ValueError, "nearest: expected 2 rows as in features"),
        ({"nearest": torch.tensor([1, 0])}, ValueError, "nearest: expected 2 dimensions"),
    ],
)
def test_supports_bad_input(change: dict[str, object], error: type[Exception], message: str) -> None:
    good = {
        "features": torch.eye(2),
        "centroids": torch.ones(3, 2),
        "labels": torch.tensor([0, 1]),
        "nearest": torch.tensor([[1], [2]]),
        "degree": 0.25,
    }
    support_samples(**good)
    with pytest.raises(error, match=f"^{message}"):
        support_samples(**good | change)


@pytest.mark.parametrize("progress", [-0.1, 1.1, math.inf])
def test_degree_bad_input(progress: float) -> None:
    with pytest.raises(ValueError, match=r"^progress: expected a finite number in \[0, 1\]"):
        interpolation_degree(progress)
