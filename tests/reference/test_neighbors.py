"""Reference neighbours against a plain float64 sort, and their order on ties and duplicates."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors, radius_neighbors_graph
from torch import Tensor

from ise_fast.reference import dbscan, jaccard_distance, kmeans_start, knn, radius_graph, re_ranking
from ise_fast.reference.neighbors import fixed_order_sum

UnitRows = Callable[..., Tensor]


def all_distances(y: Tensor, x: Tensor, metric: str) -> Tensor:
    x, y = x.double(), y.double()
    if metric == "cosine":
        lengths = y.norm(dim=1)[:, None] * x.norm(dim=1)
        return 1 - (y @ x.T) / lengths
    squared = (y[:, None] - x[None]).square().sum(-1)
    return squared.sqrt() if metric == "euclidean" else squared


@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean", "cosine"])
@pytest.mark.parametrize(("n", "d", "k"), [(1, 1, 1), (31, 33, 7), (300, 70, 30), (65, 2, 65)])
def test_equals_float64_sort(unit_rows: UnitRows, n: int, d: int, k: int, metric: str) -> None:
    x = unit_rows(n, d) * torch.linspace(1, 2, n)[:, None]  # distinct cosine and Euclidean orders
    y = unit_rows(9, d, 1)
    for queries in (None, y):
        found = knn(x, k, y=queries, metric=metric)
        distances, indices = all_distances(x if queries is None else y, x, metric).sort(stable=True)
        assert found.distances.dtype == torch.float32
        if d > 1:  # in one dimension every cosine distance is 0 or 2 up to rounding
            assert found.indices.equal(indices[:, :k])
        torch.testing.assert_close(found.distances.double(), distances[:, :k], rtol=1e-7, atol=1e-14)


@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean", "cosine"])
def test_equal_rows_are_ordered_by_index(metric: str) -> None:
    x = torch.tensor([[0.1, 0.7, -0.3]]).repeat(40, 1)
    found = knn(x, 30, metric=metric)
    assert found.indices.equal(torch.arange(30).expand(40, 30))  # rows 30-39 are not among their own neighbours
    assert found.distances.eq(0).all()


def test_ties_of_integers() -> None:
    x = torch.randint(-2, 3, (120, 3), generator=torch.Generator().manual_seed(0)).float()
    expected = (x[:, None] - x[None]).square().sum(-1).sort(stable=True)
    found = knn(x, 50)
    assert found.indices.equal(expected.indices[:, :50])
    assert found.distances.equal(expected.values[:, :50])


def test_result_does_not_depend_on_the_batch(unit_rows: UnitRows) -> None:
    x, y = unit_rows(270, 37), unit_rows(270, 37, 1)
    together = knn(x, 5, y=y)
    for i in (0, 255, 256, 269):
        alone = knn(x, 5, y=y[i : i + 1])
        assert alone.indices[0].equal(together.indices[i])
        assert alone.distances[0].equal(together.distances[i])


def test_fixed_order_sum() -> None:
    terms = torch.randn(3, 70, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    terms *= 10.0 ** torch.arange(70).remainder(9)
    for row, total in zip(terms.tolist(), fixed_order_sum(terms).tolist(), strict=True):
        lanes = [0.0] * 32
        for position, term in enumerate(row):
            lanes[position % 32] += term
        for apart in (16, 8, 4, 2, 1):
            for lane in range(apart):
                lanes[lane] += lanes[lane + apart]
        assert total == lanes[0]


def test_zero_row_has_cosine_distance_one() -> None:
    x = torch.tensor([[0.0, 0.0], [1e-30, 0.0], [3e-30, 0.0]])
    assert knn(x, 3, metric="cosine").distances.tolist() == [[1, 1, 1], [0, 0, 1], [0, 0, 1]]


def test_no_queries() -> None:
    assert knn(torch.eye(3), 2, y=torch.zeros(0, 3)).indices.shape == (0, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("eps", [0.0, 0.5, 1.1, 5.0])
def test_radius_equals_brute_force_of_sklearn(unit_rows: UnitRows, dtype: torch.dtype, eps: float) -> None:
    x = unit_rows(150, 5).to(dtype)
    x[7] = x[3]
    graph = radius_graph(x, eps).to_scipy()
    brute = NearestNeighbors(radius=eps, algorithm="brute").fit(x.numpy())
    expected = brute.radius_neighbors(x.numpy(), return_distance=False)
    assert (np.diff(graph.indptr) == [len(row) for row in expected]).all()
    assert (graph.indices == np.concatenate([np.sort(row) for row in expected])).all()
    distances = all_distances(x, x, "euclidean").numpy()
    rows = np.repeat(np.arange(150), np.diff(graph.indptr))
    np.testing.assert_allclose(graph.data, distances[rows, graph.indices], rtol=1e-7, atol=0)


@pytest.mark.parametrize("value", [0.1, 0.3, 0.5, 0.7, 1.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_radius_at_the_edge(value: float, dtype: torch.dtype) -> None:
    """eps equal to the distance, and one float32 step to either side, against scikit-learn.

    float32(float32(eps)^2) may round below float32(eps)^2, so eps itself can be outside: scikit-learn's rule, not ours.
    """
    x = torch.tensor([[0.0], [value]], dtype=dtype)
    for eps in (value, *(float(np.nextafter(np.float32(value), np.float32(side))) for side in (0, 2))):
        brute = NearestNeighbors(radius=eps, algorithm="brute").fit(x.numpy())
        assert radius_graph(x, eps).nnz == brute.radius_neighbors_graph().nnz + 2


def test_radius_other_metrics(unit_rows: UnitRows) -> None:
    x = unit_rows(40, 4)
    for metric in ("sqeuclidean", "cosine"):
        graph = radius_graph(x, 0.6, metric=metric).to_scipy()
        expected = radius_neighbors_graph(x.double().numpy(), 0.6, metric=metric, include_self=True)
        assert (graph.toarray() > 0).sum() == expected.sum() - 40
    assert radius_graph(torch.zeros(2, 3), 0.5, metric="cosine").values.tolist() == [1, 1]


def test_radius_of_nothing_and_of_one_row() -> None:
    assert radius_graph(torch.zeros(0, 3), 0.5).shape == (0, 0)
    graph = radius_graph(torch.ones(1, 3), 0.0)
    assert (graph.indptr.tolist(), graph.indices.tolist(), graph.values.tolist()) == ([0, 1], [0], [0.0])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"k": 0}, ValueError, r"k: expected an integer in \[1, 3\] \(x has 3 rows\), got 0"),
        ({"k": 4}, ValueError, r"k: expected an integer in \[1, 3\] \(x has 3 rows\), got 4"),
        ({"x": torch.zeros(0, 3)}, ValueError, r"k: expected an integer in \[1, 0\] \(x has 0 rows\), got 1"),
        ({"x": torch.eye(3, dtype=torch.float64)}, TypeError, "x: expected dtype float32 .* got float64"),
        ({"x": torch.full((3, 3), math.inf)}, ValueError, "x: expected finite values"),
        ({"y": torch.eye(2)}, ValueError, "y: expected 3 columns as in x"),
        (
            {"metric": "manhattan"},
            ValueError,
            "metric: expected one of sqeuclidean, euclidean, cosine, got 'manhattan'",
        ),
    ],
)
def test_knn_bad_input(change: dict[str, object], error: type[Exception], message: str) -> None:
    good = {"x": torch.eye(3), "k": 1}
    knn(**good)
    with pytest.raises(error, match=f"^{message}"):
        knn(**good | change)


@pytest.mark.parametrize("eps", [-0.1, math.nan, math.inf])
def test_radius_bad_eps(eps: float) -> None:
    with pytest.raises(ValueError, match=r"^eps: expected a finite number in \[0, inf\)"):
        radius_graph(torch.eye(3), eps)


def test_a_default_device_is_for_other_tensors(unit_rows: UnitRows) -> None:
    x = unit_rows(20, 4)
    calls: list[Callable[[], Tensor]] = [
        lambda: radius_graph(x, 0.5).values,
        lambda: dbscan(jaccard_distance(x, 4, 2), 0.5, 2).labels,
        lambda: kmeans_start(x, 3, torch.Generator().manual_seed(0)),
        lambda: re_ranking(x[:0], x, 4, 2),
    ]
    for call in calls:
        expected = call()
        with torch.device("meta"):
            assert call().equal(expected)
