"""Reference k-reciprocal encoding and Jaccard distance against the published numbers and against sets and loops."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from golden_data import load, names
from torch import Tensor

from ise_fast.reference import dbscan, jaccard_distance, jaccard_graph, k_reciprocal_encoding, knn
from ise_fast.reference.k_reciprocal import half_width

UnitRows = Callable[..., Tensor]


def clustered(unit_rows: UnitRows, n: int, d: int, seed: int = 0) -> Tensor:
    """Unit rows around n / 8 centres."""
    centres = unit_rows(max(n // 8, 1), d, seed).repeat(9, 1)[:n]
    return torch.nn.functional.normalize(centres + 0.6 * unit_rows(n, d, seed + 1), dim=1)


def encode_with_sets(x: Tensor, k1: int, k2: int) -> list[dict[int, float]]:
    """The definition with Python sets and loops."""
    nn = knn(x, k1).indices.tolist()
    half = min(round(k1 / 2) + 1, k1)  # round() is half to even, as np.around
    r = [{j for j in nn[i] if i in nn[j]} for i in range(len(nn))]
    h = [{j for j in nn[i][:half] if i in nn[j][:half]} for i in range(len(nn))]
    rows: list[dict[int, float]] = []
    for i, own in enumerate(r):
        star = set(own)
        for c in own:
            if 3 * len(h[c] & own) > 2 * len(h[c]):
                star |= h[c]
        weights = {j: math.exp(2 * float(x[i].double() @ x[j].double()) - 2) for j in sorted(star)}
        total = sum(weights.values())
        rows.append({j: w / total for j, w in weights.items()})
    if k2 == 1:
        return rows
    mean = []
    for i in range(len(nn)):
        columns = sorted(set().union(*(rows[j] for j in nn[i][:k2])))
        mean.append({f: sum(rows[j].get(f, 0.0) for j in nn[i][:k2]) / k2 for f in columns})
    return mean


@pytest.mark.parametrize("name", names("jaccard"))
def test_golden(name: str) -> None:
    """The published neighbours were found in float32, but no near-tie of these files changes a set."""
    g = load(name)
    distance = jaccard_distance(g["features"], g["k1"], g["k2"])
    torch.testing.assert_close(distance, g["jaccard"], rtol=0, atol=1e-6)
    assert distance.equal(distance.T)
    graph = jaccard_graph(g["features"], g["k1"], g["k2"], eps=g["eps"])
    assert dbscan(graph, g["eps"], g["min_samples"]).labels.equal(g["labels"])
    assert dbscan(g["jaccard"], g["eps"], g["min_samples"]).labels.equal(g["labels"])


@pytest.mark.parametrize(("k1", "k2"), [(1, 1), (2, 2), (5, 1), (7, 3), (12, 6), (25, 6), (30, 30)])
def test_encoding_equals_sets(unit_rows: UnitRows, k1: int, k2: int) -> None:
    x = clustered(unit_rows, 60, 8)
    v = k_reciprocal_encoding(x, k1, k2).to_scipy()
    for i, expected in enumerate(encode_with_sets(x, k1, k2)):
        row = slice(v.indptr[i], v.indptr[i + 1])
        assert v.indices[row].tolist() == list(expected)
        np.testing.assert_allclose(v.data[row], list(expected.values()), rtol=3e-7)


@pytest.mark.parametrize("k2", [1, 4])
def test_sparse_jaccard_equals_the_dense_loop_bit_for_bit(unit_rows: UnitRows, k2: int) -> None:
    x = clustered(unit_rows, 40, 6)
    v = k_reciprocal_encoding(x, 10, k2).to_scipy().toarray()
    distance = jaccard_distance(x, 10, k2).numpy()
    for i in range(40):
        for j in range(40):
            s = np.float32(0)
            for f in range(40):
                s += np.minimum(v[i, f], v[j, f])
            assert distance[i, j] == max(np.float32(1) - s / (np.float32(2) - s), np.float32(0))


def test_graph_is_the_thresholded_matrix(unit_rows: UnitRows) -> None:
    x = clustered(unit_rows, 90, 8)
    x[50:55] = x[10]  # duplicates: pairs at distance 0, which must be stored
    distance = jaccard_distance(x, 12, 3).numpy()
    graph = jaccard_graph(x, 12, 3, eps=0.5).to_scipy()
    i, j = np.nonzero(distance <= np.float32(0.5))
    assert (graph.indices == j).all()
    assert (graph.data == distance[i, j]).all()
    assert (np.repeat(np.arange(90), np.diff(graph.indptr)) == i).all()
    assert (distance[i, j][i != j] == 0).any()


def test_rows_crowded_out_of_their_own_list_are_empty() -> None:
    """40 copies, k1 = 30: rows 30-39 are in nobody's list, their own included."""
    x = torch.tensor([[0.6, 0.8]]).repeat(40, 1)
    v = k_reciprocal_encoding(x, 30, 1).to_scipy()
    assert np.diff(v.indptr).tolist() == [30] * 30 + [0] * 10
    distance = jaccard_distance(x, 30, 1)
    assert distance[:30, :30].max() < 1e-6
    assert distance[30:].eq(1).all()
    graph = jaccard_graph(x, 30, 1, eps=0.5)
    assert graph.nnz == 30 * 30 + 10  # an empty row keeps its diagonal, at distance 1
    for min_samples in (1, 4):
        sparse, dense = dbscan(graph, 0.5, min_samples), dbscan(distance, 0.5, min_samples)
        assert sparse.labels.equal(dense.labels)
        assert sparse.labels.tolist() == [0] * 30 + [-1] * 10


@pytest.mark.parametrize(("k1", "width"), [(1, 1), (2, 2), (3, 3), (5, 3), (7, 5), (25, 13), (30, 16)])
def test_half_width_rounds_half_to_even(k1: int, width: int) -> None:
    assert half_width(k1) == width


def test_one_row() -> None:
    assert jaccard_distance(torch.ones(1, 4), 1, 1).tolist() == [[0.0]]
    assert jaccard_graph(torch.ones(1, 4), 1, 1, eps=0.0).to_scipy().nnz == 1


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"k1": 41}, ValueError, r"k1: expected an integer in \[1, 40\] \(x has 40 rows\), got 41"),
        ({"k1": 0}, ValueError, r"k1: expected an integer in \[1, 40\]"),
        ({"k2": 0}, ValueError, r"k2: expected an integer in \[1, 10\] \(k1\), got 0"),
        ({"k2": 11}, ValueError, r"k2: expected an integer in \[1, 10\] \(k1\), got 11"),
        ({"eps": 1.0}, ValueError, r"eps: expected a number in \[0, 1\), got 1.0"),
        ({"eps": -0.1}, ValueError, "eps: expected a finite number"),
        ({"x": torch.full((40, 2), math.nan)}, ValueError, "x: expected finite values, got NaN or infinity in row 0"),
        ({"x": torch.zeros(40)}, ValueError, "x: expected 2 dimensions"),
        ({"x": torch.zeros(0, 2)}, ValueError, "k1: expected an integer in .1, 0. .x has 0 rows., got 10"),
    ],
)
def test_bad_input(change: dict[str, object], error: type[Exception], message: str) -> None:
    good = {"x": torch.randn(40, 2), "k1": 10, "k2": 3, "eps": 0.5}
    jaccard_graph(**good)
    with pytest.raises(error, match=f"^{message}"):
        jaccard_graph(**good | change)
