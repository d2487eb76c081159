"""The compiled DBSCAN against scikit-learn on random graphs, and its rules as properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pseudo_label_data import graph_of, with_threads
from scipy.sparse import csr_array, csr_matrix
from sklearn.cluster import DBSCAN

from ise_fast import ops
from ise_fast.types import CSRGraph, DBSCANResult

KINDS = ["symmetric", "asymmetric", "nearly_symmetric", "odd_diagonal"]


def random_distances(kind: str, seed: int) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    """Distances on a coarse grid (many equal eps, many zeros) and which of them a sparse graph stores."""
    rng = np.random.default_rng([KINDS.index(kind), seed])
    n = int(rng.integers(1, 80))
    distance = rng.integers(0, 11, (n, n)) / 10
    stored = rng.random((n, n)) < rng.choice([0.02, 0.06, 0.2, 0.6, 1.0])
    if kind != "asymmetric":
        distance, stored = np.triu(distance) + np.triu(distance, 1).T, np.triu(stored) | np.triu(stored, 1).T
    if kind == "nearly_symmetric":
        i, j = rng.integers(0, n, 2)
        stored[i, j] ^= True
    if kind != "odd_diagonal":
        np.fill_diagonal(distance, 0)
    return distance.astype(rng.choice([np.float32, np.float64])), stored


def sparse(distance: NDArray[np.floating], stored: NDArray[np.bool_]) -> csr_array:
    """With explicit zeros."""
    rows, columns = np.nonzero(stored)
    return csr_array((distance[rows, columns], (rows, columns)), shape=distance.shape)


def assert_same(found: DBSCANResult, expected: DBSCAN) -> None:
    assert found.labels.tolist() == expected.labels_.tolist()
    assert found.core_mask.nonzero()[:, 0].tolist() == expected.core_sample_indices_.tolist()


@pytest.mark.parametrize("first", range(0, 600, 50))
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.EfficiencyWarning", "ignore::scipy.sparse.SparseEfficiencyWarning"
)
def test_equals_sklearn(kind: str, first: int, device: torch.device) -> None:
    """2,400 graphs, each dense and sparse."""
    for seed in range(first, first + 50):
        distance, stored = random_distances(kind, seed)
        model = DBSCAN(eps=0.1 * (seed % 7), min_samples=1 + seed % 5, metric="precomputed")
        model.eps = max(model.eps, 1e-9)  # scikit-learn refuses 0, which among these distances is the same
        assert_same(
            ops.dbscan(torch.from_numpy(distance).to(device), model.eps, model.min_samples), model.fit(distance)
        )
        matrix = sparse(distance, stored)
        graph = CSRGraph.from_scipy(matrix).to(device)
        wide = CSRGraph(graph.indptr, graph.indices.long(), graph.values)
        model.fit(csr_matrix(matrix))
        assert_same(ops.dbscan(graph, model.eps, model.min_samples), model)
        assert_same(ops.dbscan(wide, model.eps, model.min_samples), model)


def both_ways(pairs: list[tuple[int, int]], value: float = 0.1) -> dict[tuple[int, int], float]:
    return {pair: value for a, b in pairs for pair in ((a, b), (b, a))}


def test_border_point_takes_the_first_cluster_that_reaches_it(device: torch.device) -> None:
    pairs = [(0, 1), (0, 2), (1, 2), (4, 5), (4, 6), (5, 6), (2, 3), (3, 4)]  # 3 lies between two triangles
    found = ops.dbscan(graph_of(8, both_ways(pairs)).to(device), 0.5, min_samples=4)
    assert found.core_mask.tolist() == [False, False, True, False, True, False, False, False]
    assert found.labels.tolist() == [0, 0, 0, 0, 1, 1, 1, -1]


def test_directed_edges_are_followed_forwards_only(device: torch.device) -> None:
    found = ops.dbscan(graph_of(3, {(1, 0): 0.1, (2, 0): 0.1}).to(device), 0.5, min_samples=1)
    assert found.labels.tolist() == [0, 1, 2]
    found = ops.dbscan(graph_of(3, {(0, 1): 0.1, (0, 2): 0.1}).to(device), 0.5, min_samples=1)
    assert found.labels.tolist() == [0, 0, 0]


def test_border_edges_count_from_the_core_side(device: torch.device) -> None:
    """Core 0 does not list border point 3, core 4 does; 3 lists both."""
    entries = both_ways([(0, 1), (0, 2), (1, 2), (4, 5), (4, 6), (5, 6)]) | {(3, 0): 0.1, (4, 3): 0.1}
    found = ops.dbscan(graph_of(7, entries).to(device), 0.5, min_samples=3)
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1, 1]


def test_diagonal(device: torch.device) -> None:
    pairs = both_ways([(0, 1)])
    assert ops.dbscan(graph_of(2, pairs).to(device), 0.5, 2).core_mask.tolist() == [True, True]
    assert ops.dbscan(graph_of(2, pairs | {(0, 0): 0.9}).to(device), 0.5, 2).core_mask.tolist() == [False, True]
    assert ops.dbscan(torch.tensor([[0.9, 0.1], [0.1, 0.0]], device=device), 0.5, 2).core_mask.tolist() == [False, True]


def test_eps_zero(device: torch.device) -> None:
    assert ops.dbscan(graph_of(3, both_ways([(0, 1)], 0.0)).to(device), 0.0, 2).labels.tolist() == [0, 0, -1]
    assert ops.dbscan(1 - torch.eye(3, device=device), 0.0, 1).labels.tolist() == [0, 1, 2]


def test_min_samples_of_one_and_of_more_than_there_are(device: torch.device) -> None:
    distance = 1 - torch.eye(3, device=device)
    assert ops.dbscan(distance, 0.5, 1).labels.tolist() == [0, 1, 2]
    assert ops.dbscan(distance, 5.0, 4).labels.tolist() == [-1, -1, -1]
    assert ops.dbscan(distance, 5.0, 2**62).labels.tolist() == [-1, -1, -1]


@pytest.mark.parametrize("n", [0, 1, 63, 64, 65, 130])
def test_sizes_around_a_word(n: int, device: torch.device) -> None:
    distance = torch.zeros(n, n, device=device)
    assert ops.dbscan(distance, 0.5, 1).labels.tolist() == [0] * n
    assert ops.dbscan(graph_of(n, {}).to(device), 0.5, 1).labels.tolist() == list(range(n))
    assert ops.dbscan(graph_of(n, {}).to(device), 0.5, 2).core_mask.tolist() == [False] * n


def test_long_chain(device: torch.device) -> None:
    """One component of the greatest depth, in an order that a careless union-find takes quadratic time for."""
    n = 20_001
    order = np.random.default_rng(0).permutation(n)
    for chain in (np.arange(n), np.arange(n)[::-1], order):
        a, b = chain[:-1], chain[1:]
        matrix = csr_array((np.full(2 * n - 2, 0.1, np.float32), (np.r_[a, b], np.r_[b, a])), shape=(n, n))
        found = ops.dbscan(CSRGraph.from_scipy(matrix).to(device), 0.5, 2)
        assert found.labels.eq(0).all()
        assert found.core_mask.all()


def test_float32_distances_compare_in_float32(device: torch.device) -> None:
    distance = torch.tensor([[0.0, 0.1], [0.1, 0.0]], device=device)  # float32(0.1) > 0.1
    assert ops.dbscan(distance, 0.1, 2).labels.tolist() == [0, 0]
    assert ops.dbscan(distance.double(), 0.1, 2).labels.tolist() == [-1, -1]


def test_threads_strides_and_repetition_do_not_change_the_labels() -> None:
    rng = np.random.default_rng(0)
    points = rng.random((700, 2))
    distance = np.sqrt(((points[:, None] - points) ** 2).sum(-1)).astype(np.float32)
    for kept in (distance < 0.1, (distance < 0.1) & (rng.random(distance.shape) < 0.7)):
        graph = CSRGraph.from_scipy(sparse(distance, kept))
        strided = CSRGraph(*(p.repeat_interleave(2)[::2] for p in (graph.indptr, graph.indices, graph.values)))
        one, two, four = with_threads(lambda graph=graph: ops.dbscan(graph, 0.04, 5))
        for other in (two, four, ops.dbscan(strided, 0.04, 5)):
            assert other.labels.equal(one.labels)
            assert other.core_mask.equal(one.core_mask)
    matrix = torch.from_numpy(distance)
    one, two, four = with_threads(lambda: ops.dbscan(matrix, 0.04, 5))
    for other in (two, four, ops.dbscan(matrix.T, 0.04, 5), ops.dbscan(matrix.repeat(1, 2)[:, :700], 0.04, 5)):
        assert other.labels.equal(one.labels)


def test_dense_matrices_are_followed_along_their_rows(device: torch.device) -> None:
    distance = torch.tensor([[0.0, 0.9, 0.9], [0.1, 0.0, 0.9], [0.1, 0.9, 0.0]], device=device)
    assert ops.dbscan(distance, 0.5, 1).labels.tolist() == [0, 1, 2]
    assert ops.dbscan(distance.T, 0.5, 1).labels.tolist() == [0, 0, 0]


@st.composite
def symmetric_graphs(draw: st.DrawFn) -> tuple[int, set[tuple[int, int]], int]:
    """Number of points, undirected edges within eps, min_samples."""
    n = draw(st.integers(1, 25))
    node = st.integers(0, n - 1)
    edges = draw(st.sets(st.tuples(node, node).filter(lambda e: e[0] < e[1]), max_size=60)) if n > 1 else set()
    return n, edges, draw(st.integers(1, 6))


@settings(max_examples=300, deadline=None)
@given(symmetric_graphs())
def test_rules(case: tuple[int, set[tuple[int, int]], int]) -> None:
    """Section by section what DBSCAN promises, without another implementation."""
    n, edges, min_samples = case
    graph = graph_of(n, both_ways(sorted(edges)))
    labels, core = (t.tolist() for t in ops.dbscan(graph, 0.5, min_samples))
    near = [{i} | {a + b - i for a, b in edges if i in (a, b)} for i in range(n)]
    assert core == [len(near[i]) >= min_samples for i in range(n)]
    for i in range(n):
        of_cores = {labels[j] for j in near[i] if core[j]}
        if core[i]:
            assert of_cores == {labels[i]}  # neighbouring cores share a cluster
        else:
            assert labels[i] == min(of_cores, default=-1)  # border: the smallest; noise: -1
    first = {c: min(i for i in range(n) if core[i] and labels[i] == c) for c in set(labels) - {-1}}
    assert sorted(first) == list(range(len(first)))  # every cluster has a core, numbers have no gaps
    assert sorted(first.values()) == [first[c] for c in sorted(first)]  # numbered by the lowest core
    for c, start in first.items():  # a cluster is connected through its cores
        reached, stack = {start}, [start]
        while stack:
            new = {j for j in near[stack.pop()] if core[j]} - reached
            reached |= new
            stack += new
        assert reached == {i for i in range(n) if core[i] and labels[i] == c}


@settings(max_examples=100, deadline=None)
@given(symmetric_graphs(), st.randoms(use_true_random=False))
def test_core_points_and_their_partition_do_not_depend_on_the_order(
    case: tuple[int, set[tuple[int, int]], int], random: object
) -> None:
    n, edges, min_samples = case
    order = list(range(n))
    random.shuffle(order)  # type: ignore[attr-defined]
    before = ops.dbscan(graph_of(n, both_ways(sorted(edges))), 0.5, min_samples)
    moved = ops.dbscan(graph_of(n, both_ways([(order[a], order[b]) for a, b in edges])), 0.5, min_samples)
    assert before.core_mask.equal(moved.core_mask[order])
    pairs = {(a, b) for i, (a, b) in enumerate(zip(before.labels.tolist(), moved.labels[order].tolist(), strict=True))
             if before.core_mask[i]}  # fmt: skip
    assert len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs)  # a bijection of cluster numbers


@settings(max_examples=100, deadline=None)
@given(symmetric_graphs())
def test_dense_and_sparse_agree(case: tuple[int, set[tuple[int, int]], int]) -> None:
    n, edges, min_samples = case
    distance = torch.ones(n, n).fill_diagonal_(0)
    for a, b in edges:
        distance[a, b] = distance[b, a] = 0.1
    found, expected = (
        ops.dbscan(distance, 0.5, min_samples),
        ops.dbscan(graph_of(n, both_ways(sorted(edges))), 0.5, min_samples),
    )
    assert found.labels.equal(expected.labels)
    assert found.core_mask.equal(expected.core_mask)


def test_opcheck(device: torch.device) -> None:
    graph = graph_of(5, both_ways([(0, 1), (1, 2)])).to(device)
    torch.library.opcheck(torch.ops.ise_fast.dbscan.default, (graph.indptr, graph.indices, graph.values, 0.5, 2))
    torch.library.opcheck(torch.ops.ise_fast.dbscan_dense.default, (1 - torch.eye(4, device=device), 0.5, 2))


def test_compiles_without_a_break() -> None:
    graph = graph_of(5, both_ways([(0, 1), (1, 2)]))

    def labels(indptr: torch.Tensor, indices: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return ops.dbscan(CSRGraph(indptr, indices, values), 0.5, 2).labels + 1

    compiled = torch.compile(labels, fullgraph=True, backend="eager")
    assert compiled(graph.indptr, graph.indices, graph.values).tolist() == [1, 1, 1, 0, 0]


def parts(indptr: list[int], indices: list[int], values: list[float], shape: tuple[int, int] = (2, 2)) -> CSRGraph:
    return CSRGraph(torch.tensor(indptr, dtype=torch.int64), torch.tensor(indices), torch.tensor(values), shape)


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (torch.zeros(2, 3), ValueError, r"graph: expected a square matrix, got shape \[2, 3\]"),
        (torch.tensor([[0.0, math.nan], [0, 0]]), ValueError,
         "graph: expected finite values of at least 0, got nan at row 0, column 1"),
        (torch.tensor([[0.0, 0], [math.inf, 0]]), ValueError,
         "graph: expected finite values of at least 0, got inf at row 1, column 0"),
        (torch.tensor([[-1.0]]), ValueError, "graph: expected finite values of at least 0, got -1"),
        (torch.zeros(2, 2, dtype=torch.int64), TypeError, "graph: expected dtype float32 or float64, got int64"),
        (torch.zeros(2), ValueError, "graph: expected 2 dimensions"),
        (np.zeros((2, 2)), TypeError, "graph: expected a torch tensor, got ndarray"),
        (parts([0, 1, 2], [0, 1], [0.0, 0.0], (2, 3)), ValueError, "graph: expected a square graph"),
        (parts([0, 1], [0], [0.0]), ValueError, "graph.indptr: expected 3 offsets for 2 rows, got 2"),
        (parts([], [], [], (0, 0)), ValueError, "graph.indptr: expected 1 offsets for 0 rows, got 0"),
        (parts([0, 2, 1], [0], [0.0]), ValueError, "indptr: expected values that never fall, got 2 before 1 at row 1"),
        (parts([0, 2**62, 1], [0], [0.0]), ValueError, "indptr: expected values that never fall"),
        (parts([0, -1, 1], [0], [0.0]), ValueError, "indptr: expected values that never fall"),
        (parts([1, 1, 1], [0], [0.0]), ValueError, "indptr: expected 0 first, got 1"),
        (parts([0, 1, 3], [0, 1], [0.0, 0.0]), ValueError, r"indptr: expected 2 \(size of indices\) last, got 3"),
        (parts([0, 1, 2], [0, 2], [0.0, 0.0]), ValueError, "indices: expected 0 to 1, got 2 in row 1"),
        (parts([0, 1, 2], [0, -1], [0.0, 0.0]), ValueError, "indices: expected 0 to 1, got -1 in row 1"),
        (parts([0, 2, 2], [1, 1], [0.0, 0.0]), ValueError, "indices: expected ascending columns"),
        (parts([0, 2, 2], [1, 0], [0.0, 0.0]), ValueError, "indices: expected ascending columns"),
        (parts([0, 1, 1], [0], [0.0, 0.0]), ValueError, "values: expected size 1 in dimension 0"),
        (parts([0, 1, 1], [0], [math.inf]), ValueError, "values: expected finite values"),
        (parts([0, 1, 1], [0], [math.nan]), ValueError, "values: expected finite values"),
        (parts([0, 1, 1], [0], [-1.0]), ValueError, "values: expected finite values of at least 0, got -1 in row 0"),
        (parts([0, 1, 1], [0], [1]), ValueError, "values: expected float32 or float64, got int64"),
        (parts([0, 1, 1], [0.0], [1.0]), ValueError, "indices: expected int32 or int64, got float32"),
    ],
)  # fmt: skip
def test_bad_graph(bad: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}"):
        ops.dbscan(bad, 0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("eps", "min_samples", "error"),
    [
        (-1.0, 4, ValueError),
        (math.nan, 4, ValueError),
        (math.inf, 4, ValueError),
        (0.5, 0, ValueError),
        (0.5, -3, ValueError),
        (0.5, 2.5, TypeError),
        ("0.5", 2, TypeError),
    ],
)
def test_bad_parameters(eps: float, min_samples: int, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^(eps|min_samples): expected"):
        ops.dbscan(torch.zeros(2, 2), eps, min_samples)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.integers(-2, 12) | st.integers(-(2**63), 2**63 - 1), max_size=8),
    st.lists(st.integers(-2, 8), max_size=12),
    st.lists(st.floats(width=32), max_size=12),
    st.sampled_from([torch.int32, torch.int64]),
)
def test_malformed_graphs_never_crash(
    indptr: list[int], indices: list[int], values: list[float], dtype: torch.dtype
) -> None:
    graph = torch.tensor(indptr, dtype=torch.int64), torch.tensor(indices, dtype=dtype), torch.tensor(values)
    try:
        labels, _ = torch.ops.ise_fast.dbscan(*graph, 0.5, 2)
    except ValueError:
        return
    assert labels.numel() == len(indptr) - 1
