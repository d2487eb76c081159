"""Reference DBSCAN against scikit-learn on random graphs, and on graphs worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pseudo_label_data import graph_of
from scipy.sparse import csr_array, csr_matrix
from sklearn.cluster import DBSCAN

from ise_fast.reference import dbscan
from ise_fast.types import CSRGraph


def random_matrix(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Distances on a coarse grid (many equal eps), and which of them a sparse graph stores."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 40))
    distance = rng.integers(0, 11, (n, n)) / 10
    stored = rng.random((n, n)) < rng.choice([0.05, 0.2, 0.6])
    if seed % 2:
        distance, stored = np.triu(distance) + np.triu(distance, 1).T, np.triu(stored) | np.triu(stored, 1).T
    if seed % 3 == 0:
        np.fill_diagonal(distance, 0)
    return distance.astype(np.float32 if seed % 5 else np.float64), stored


@pytest.mark.parametrize("seed", range(300))
@pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.EfficiencyWarning", "ignore::scipy.sparse.SparseEfficiencyWarning"
)
def test_equals_sklearn(seed: int) -> None:
    distance, stored = random_matrix(seed)
    eps, min_samples = (0.1 * (1 + seed % 4), 1 + seed % 5)
    expected = DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed").fit(distance)
    found = dbscan(torch.from_numpy(distance), eps, min_samples)
    assert found.labels.tolist() == expected.labels_.tolist()
    assert found.core_mask.nonzero()[:, 0].tolist() == expected.core_sample_indices_.tolist()

    rows, columns = np.nonzero(stored)
    sparse = csr_array((distance[rows, columns], (rows, columns)), shape=distance.shape)  # keeps explicit zeros
    expected = DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed").fit(csr_matrix(sparse))
    found = dbscan(CSRGraph.from_scipy(sparse), eps, min_samples)
    assert found.labels.tolist() == expected.labels_.tolist()
    assert found.core_mask.nonzero()[:, 0].tolist() == expected.core_sample_indices_.tolist()


def test_border_point_takes_the_first_cluster_that_reaches_it() -> None:
    pairs = [(0, 1), (0, 2), (1, 2), (4, 5), (4, 6), (5, 6), (2, 3), (3, 4)]  # 3 lies between two triangles
    entries = {pair: 0.1 for a, b in pairs for pair in ((a, b), (b, a))}
    found = dbscan(graph_of(8, entries), 0.5, min_samples=4)
    assert found.core_mask.tolist() == [False, False, True, False, True, False, False, False]
    assert found.labels.tolist() == [0, 0, 0, 0, 1, 1, 1, -1]


def test_directed_edges_are_followed_forwards_only() -> None:
    """1 -> 0 and 2 -> 0 are edges, 0 -> 1 and 0 -> 2 are not: with min_samples = 1 every point is core."""
    found = dbscan(graph_of(3, {(1, 0): 0.1, (2, 0): 0.1}), 0.5, min_samples=1)
    assert found.labels.tolist() == [0, 1, 2]
    found = dbscan(graph_of(3, {(0, 1): 0.1, (0, 2): 0.1}), 0.5, min_samples=1)
    assert found.labels.tolist() == [0, 0, 0]


def test_diagonal() -> None:
    far, none = graph_of(2, {(0, 0): 0.9, (0, 1): 0.1, (1, 0): 0.1}), graph_of(2, {(0, 1): 0.1, (1, 0): 0.1})
    assert dbscan(none, 0.5, 2).core_mask.tolist() == [True, True]
    assert dbscan(far, 0.5, 2).core_mask.tolist() == [False, True]


def test_eps_zero_and_no_points() -> None:
    assert dbscan(graph_of(3, {(0, 1): 0.0, (1, 0): 0.0}), 0.0, 2).labels.tolist() == [0, 0, -1]
    assert dbscan(torch.zeros(0, 0), 0.5, 1).labels.shape == (0,)
    assert dbscan(graph_of(0, {}), 0.5, 1).core_mask.shape == (0,)


def test_float32_distances_compare_in_float32() -> None:
    distance = torch.tensor([[0.0, 0.1], [0.1, 0.0]])  # float32(0.1) > 0.1
    assert dbscan(distance, 0.1, 2).labels.tolist() == [0, 0]
    assert dbscan(distance.double(), 0.1, 2).labels.tolist() == [-1, -1]


I64, F32 = torch.int64, torch.float32


def parts(indptr: list[int], indices: list[int], values: list[float], shape: tuple[int, int] = (2, 2)) -> CSRGraph:
    return CSRGraph(torch.tensor(indptr), torch.tensor(indices, dtype=I64), torch.tensor(values, dtype=F32), shape)


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (torch.zeros(2, 3), ValueError, r"graph: expected a square matrix, got shape \(2, 3\)"),
        (torch.tensor([[math.nan]]), ValueError, "graph: expected finite values"),
        (torch.tensor([[-1.0]]), ValueError, "graph: expected distances of at least 0, got -1"),
        (torch.zeros(2, 2, dtype=I64), TypeError, "graph: expected dtype float32 or float64, got int64"),
        (np.zeros((2, 2)), TypeError, "graph: expected a torch tensor, got ndarray"),
        (parts([0, 1, 2], [0, 1], [0, 0], (2, 3)), ValueError, "graph: expected a square graph"),
        (parts([0, 1], [0], [0]), ValueError, "graph.indptr: expected 3 offsets for 2 rows, got 2"),
        (parts([0, 2, 1], [0], [0]), ValueError, "graph.indptr: expected to rise from 0 to 1"),
        (parts([1, 1, 1], [0], [0]), ValueError, "graph.indptr: expected to rise from 0 to 1"),
        (parts([0, 1, 3], [0, 1], [0, 0]), ValueError, "graph.indptr: expected to rise from 0 to 2"),
        (parts([0, 1, 2], [0, 2], [0, 0]), ValueError, r"graph.indices: expected values in \[0, 2\), got 2"),
        (parts([0, 1, 2], [0, -1], [0, 0]), ValueError, r"graph.indices: expected values in \[0, 2\), got -1"),
        (parts([0, 2, 2], [1, 1], [0, 0]), ValueError, "graph.indices: expected strictly ascending columns"),
        (parts([0, 2, 2], [1, 0], [0, 0]), ValueError, "graph.indices: expected strictly ascending columns"),
        (parts([0, 1, 1], [0], [0, 0]), ValueError, "graph.indices: expected 2 as in values, got 1"),
        (parts([0, 1, 1], [0], [math.inf]), ValueError, "graph.values: expected finite values"),
        (parts([0, 1, 1], [0], [-1]), ValueError, "graph.values: expected distances of at least 0"),
    ],
)
def test_bad_graph(bad: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}"):
        dbscan(bad, 0.5)


@pytest.mark.parametrize(("eps", "min_samples"), [(-1.0, 4), (math.nan, 4), (0.5, 0), (0.5, -3)])
def test_bad_parameters(eps: float, min_samples: int) -> None:
    with pytest.raises(ValueError, match=r"^(eps|min_samples): expected"):
        dbscan(torch.zeros(2, 2), eps, min_samples)
