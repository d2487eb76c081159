"""Reference evaluation and re-ranking against the published numbers, scikit-learn, and loops."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from golden_data import load, names
from sklearn.metrics import average_precision_score
from torch import Tensor

from ise_fast.reference import rank_metrics, re_ranking

UnitRows = Callable[..., Tensor]


@pytest.mark.parametrize("name", names("eval"))
def test_golden(name: str) -> None:
    g = load(name)
    people = (g["query_ids"], g["gallery_ids"], g["query_cams"], g["gallery_cams"])
    plain = rank_metrics(g["distance"], *people)
    assert plain.mAP == pytest.approx(g["mAP"], abs=1e-12)
    torch.testing.assert_close(plain.cmc.double(), g["cmc"], rtol=0, atol=3e-8)
    reranked = re_ranking(g["query"], g["gallery"], g["k1"], g["k2"], g["lambda_value"])
    torch.testing.assert_close(reranked, g["reranked"], rtol=0, atol=1e-6)
    after = rank_metrics(reranked, *people)
    assert after.mAP == pytest.approx(g["reranked_mAP"], abs=1e-12)
    torch.testing.assert_close(after.cmc.double(), g["reranked_cmc"], rtol=0, atol=3e-8)


def re_rank_with_sets(x: Tensor, queries: int, k1: int, k2: int, weight: float) -> Tensor:
    """The definition with Python sets and loops."""
    n = len(x)
    squared = (x.double()[:, None] - x.double()).square().sum(-1)
    nn = squared.sort(stable=True).indices[:, : k1 + 1].tolist()
    d = squared / squared.max(dim=1, keepdim=True).values
    half = round(k1 / 2) + 1
    r = [{j for j in nn[i] if i in nn[j]} for i in range(n)]
    h = [{j for j in nn[i][:half] if i in nn[j][:half]} for i in range(n)]
    v = torch.zeros(n, n, dtype=torch.float64)
    for i, own in enumerate(r):
        star = set(own).union(*(h[c] for c in own if 3 * len(h[c] & own) > 2 * len(h[c])))
        for j in star:
            v[i, j] = math.exp(-d[i, j])
        v[i] /= v[i].sum()
    if k2 > 1:
        v = torch.stack([v[nn[i][:k2]].mean(0) for i in range(n)])
    s = torch.minimum(v[:, None], v).sum(-1)
    return ((1 - weight) * (1 - s / (2 - s)) + weight * d)[:queries, queries:]


@pytest.mark.parametrize(("k1", "k2", "weight"), [(1, 1, 0.3), (5, 1, 0.0), (7, 3, 1.0), (12, 6, 0.3), (44, 44, 0.5)])
def test_re_ranking_equals_sets(unit_rows: UnitRows, k1: int, k2: int, weight: float) -> None:
    query, gallery = unit_rows(12, 5), 2 * unit_rows(33, 5, 1)
    found = re_ranking(query, gallery, k1, k2, weight)
    expected = re_rank_with_sets(torch.cat([query, gallery]), 12, k1, k2, weight)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-6)


def test_re_ranking_of_duplicates_is_finite() -> None:
    same = re_ranking(torch.ones(4, 3), torch.ones(30, 3), 10, 4)
    assert same.shape == (4, 30)
    assert same.isfinite().all()


def test_re_ranking_without_queries(unit_rows: UnitRows) -> None:
    assert re_ranking(torch.zeros(0, 4), unit_rows(20, 4), 5, 2).shape == (0, 20)


def ids(*values: int) -> Tensor:
    return torch.tensor(values)


def test_worked_example() -> None:
    """Ranks of the matches: query 0 at 1 and 3 (entry 4 is its own camera), query 1 at 4, query 2 has none."""
    distance = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.0], [0.1, 0.2, 0.3, 0.4, 0.5], [0.1, 0.2, 0.3, 0.4, 0.5]])
    found = rank_metrics(distance, ids(7, 8, 9), ids(7, 5, 7, 8, 7), ids(0, 0, 0), ids(1, 1, 1, 1, 0), max_rank=4)
    first = (1 / 1 + 2 / 3) / 2
    torch.testing.assert_close(found.ap, torch.tensor([first, 1 / 4, math.nan]), equal_nan=True)
    assert found.mAP == pytest.approx((first + 1 / 4) / 2)
    assert found.mINP == pytest.approx((2 / 3 + 1 / 4) / 2)
    assert found.cmc.tolist() == [0.5, 0.5, 0.5, 1.0]


@pytest.mark.parametrize("seed", range(20))
def test_average_precision_of_sklearn_with_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    distance = rng.integers(0, 6, (8, 30)) / 8
    query_ids, gallery_ids = rng.integers(0, 5, 8), rng.integers(0, 5, 30)
    query_cams, gallery_cams = rng.integers(0, 3, 8), rng.integers(0, 3, 30)
    found = rank_metrics(*map(torch.from_numpy, (distance, query_ids, gallery_ids, query_cams, gallery_cams)))
    for i in range(8):
        keep = ~((gallery_ids == query_ids[i]) & (gallery_cams == query_cams[i]))
        match = (gallery_ids == query_ids[i])[keep]
        if match.any():
            assert found.ap[i].item() == pytest.approx(average_precision_score(match, -distance[i, keep]), rel=1e-6)
        else:
            assert found.ap[i].isnan()


def test_ties_are_ranked_by_index() -> None:
    found = rank_metrics(torch.zeros(1, 4), ids(1), ids(0, 1, 0, 1), max_rank=6)
    assert found.cmc.tolist() == [0, 1, 1, 1, 1, 1]
    assert found.mINP == 0.5
    assert found.mAP == 0.5


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"distance": torch.zeros(3)}, ValueError, "distance: expected 2 dimensions"),
        ({"distance": torch.full((1, 2), math.nan)}, ValueError, "distance: expected finite values"),
        ({"distance": torch.zeros(1, 2).half()}, TypeError, "distance: expected dtype float32 or float64, got float16"),
        ({"query_ids": ids(1, 2)}, ValueError, "query_ids: expected one label for each of the 1 rows of distance"),
        ({"gallery_ids": ids(1)}, ValueError, "gallery_ids: expected one label for each of the 2 rows of distance.T"),
        ({"gallery_ids": ids(2, 2)}, ValueError, "query_ids: expected at least one query with a match"),
        ({"query_cams": ids(0)}, ValueError, "gallery_cams: expected cameras for query and gallery or for neither"),
        ({"gallery_cams": ids(0, 0)}, ValueError, "query_cams: expected cameras for query and gallery or for neither"),
        ({"max_rank": 0}, ValueError, r"max_rank: expected an integer in \[1, 1048576\], got 0"),
    ],
)
def test_rank_metrics_bad_input(change: dict[str, object], error: type[Exception], message: str) -> None:
    good = {"distance": torch.zeros(1, 2), "query_ids": ids(1), "gallery_ids": ids(1, 0)}
    rank_metrics(**good)
    with pytest.raises(error, match=f"^{message}"):
        rank_metrics(**good | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"k1": 12},
            r"k1: expected an integer in \[1, 11\] \(one less than the 12 rows of query and gallery\), got 12",
        ),
        ({"k2": 6}, r"k2: expected an integer in \[1, 5\] \(k1\), got 6"),
        ({"lambda_value": 1.1}, r"lambda_value: expected a finite number in \[0, 1\]"),
        ({"gallery": torch.ones(10, 4)}, "gallery: expected 3 columns as in query"),
        ({"query": torch.full((2, 3), math.inf)}, "query: expected finite values"),
    ],
)
def test_re_ranking_bad_input(change: dict[str, object], message: str) -> None:
    good = {"query": torch.randn(2, 3), "gallery": torch.randn(10, 3), "k1": 5, "k2": 2, "lambda_value": 0.3}
    re_ranking(**good)
    with pytest.raises(ValueError, match=f"^{message}"):
        re_ranking(**good | change)
