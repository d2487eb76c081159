from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from ise_fast import ops, reference
from ise_fast.types import CSRGraph

UnitRows = Callable[..., Tensor]
METRICS = ("sqeuclidean", "euclidean", "cosine")


def assert_same(found: CSRGraph, expected: CSRGraph) -> None:
    assert found.shape == expected.shape
    assert found.indptr.cpu().equal(expected.indptr.cpu())
    assert found.indices.dtype == torch.int32
    assert found.indices.cpu().equal(expected.indices.cpu())
    assert found.values.cpu().equal(expected.values.cpu())


def graph_in_blocks(x: Tensor, eps: float, metric: str, block: int) -> CSRGraph:
    return CSRGraph(*torch.ops.ise_fast.radius_graph(x, eps, metric, block))


def sklearn_pairs(x: Tensor, eps: float) -> list[list[int]]:
    """Neighbour lists of scikit-learn's brute force, ascending."""
    search = NearestNeighbors(radius=eps, algorithm="brute").fit(x.numpy())
    return [sorted(row.tolist()) for row in search.radius_neighbors(x.numpy(), return_distance=False)]


def pairs(graph: CSRGraph) -> list[list[int]]:
    return [row.tolist() for row in graph.indices.split(graph.indptr.diff().tolist())]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "d"), [(0, 3), (1, 1), (31, 33), (257, 5), (120, 70)])
def test_equals_the_reference(device: torch.device, n: int, d: int, dtype: torch.dtype, metric: str) -> None:
    generator = torch.Generator().manual_seed(n)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64).to(dtype)
    integers = torch.randint(-1, 2, (n, d), generator=generator).to(dtype)
    for rows in (x, integers, x * 1e18, x * 1e-25, x[: n // 9 + 1].repeat(9, 1)[:n]):
        scale = float(rows.norm(dim=1).mean()) if n and metric != "cosine" else 1.0
        eps = 0.0 if n == 0 else min(0.8 * (scale**2 if metric == "sqeuclidean" else scale), 1e38)
        for radius in (eps, 0.0):
            assert_same(
                ops.radius_graph(rows.to(device), radius, metric=metric),
                reference.radius_graph(rows, radius, metric=metric),
            )


def test_small_example(device: torch.device) -> None:
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]], device=device)
    graph = ops.radius_graph(x, 5.0)
    assert graph.indptr.tolist() == [0, 3, 6, 9]
    assert graph.values[1] == 5.0
    assert pairs(ops.radius_graph(x, 4.999)) == [[0, 2], [1, 2], [0, 1, 2]]
    assert pairs(ops.radius_graph(x, 0.5, metric="cosine")) == [[0], [1, 2], [1, 2]]  # the zero row keeps its diagonal


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "d", "eps"), [(200, 2, 0.7), (150, 16, 4.5), (90, 200, 19.5)])
def test_equals_scikit_learn(device: torch.device, n: int, d: int, eps: float, dtype: torch.dtype) -> None:
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(d), dtype=dtype)
    found = pairs(ops.radius_graph(x.to(device), eps))
    assert found == sklearn_pairs(x, eps)
    assert n * 2 < sum(map(len, found)) < n * n // 2  # neither all pairs nor none


@pytest.mark.parametrize("eps", [1.0, 3**0.5, 5**0.5, 0.1 * 7, 2.2360678, 2.2360682, 3.0])
def test_equals_scikit_learn_on_the_boundary(device: torch.device, eps: float) -> None:
    """Integers: every squared distance is exact, and many are 1, 3, 5 or 9, so only the rounding of eps decides."""
    x = torch.randint(0, 4, (150, 4), generator=torch.Generator().manual_seed(1))
    for dtype in (torch.float32, torch.float64):
        rows = x.to(dtype)
        assert pairs(ops.radius_graph(rows.to(device), eps)) == sklearn_pairs(rows, eps)


def test_a_radius_that_is_the_distance_itself(unit_rows: UnitRows, device: torch.device) -> None:
    """eps next to the distance of a pair: the pair enters with one step of eps, not before."""
    x = unit_rows(40, 6)
    squared = (x[3].double() - x[17].double()).square()
    eps = float(reference.neighbors.fixed_order_sum(squared[None])[0].sqrt())
    double = x.double().to(device)
    below, above = (float(np.nextafter(eps, end)) for end in (0.0, 9.0))
    assert 17 in pairs(ops.radius_graph(double, float(np.nextafter(above, 9.0))))[3]
    assert 17 not in pairs(ops.radius_graph(double, float(np.nextafter(below, 0.0))))[3]


@pytest.mark.parametrize("metric", METRICS)
def test_blocks_and_threads_do_not_change_the_bits(restore_threads: None, metric: str) -> None:
    x = torch.randint(-2, 3, (150, 6), generator=torch.Generator().manual_seed(0)).float()
    eps = {"cosine": 0.3, "euclidean": 2.5, "sqeuclidean": 6.0}[metric]
    expected = ops.radius_graph(x, eps, metric=metric)
    assert 400 < expected.nnz < 10000
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        for block in (0, 7, 64, 149, 1000):
            assert_same(graph_in_blocks(x, eps, metric, block), expected)


def test_strided_and_half_precision_input(unit_rows: UnitRows, device: torch.device) -> None:
    x = unit_rows(60, 8).to(device)
    first = ops.radius_graph(x, 1.1)
    assert_same(ops.radius_graph(x, 1.1), first)
    assert_same(ops.radius_graph(x.T.contiguous().T, 1.1), first)
    assert_same(ops.radius_graph(x.repeat_interleave(2, 0)[::2], 1.1), first)
    assert_same(ops.radius_graph(x.half(), 1.1), ops.radius_graph(x.half().float(), 1.1))


def test_every_pair_within_a_huge_radius(device: torch.device) -> None:
    x = torch.arange(30.0, device=device)[:, None]
    assert ops.radius_graph(x, 1e30).nnz == 900  # its float32 square is infinite
    assert ops.radius_graph(x, 2.0, metric="cosine").nnz == 900


@pytest.mark.parametrize(
    ("metric", "dtype", "scale", "eps"),
    [
        ("euclidean", torch.float64, 1e40, 1.5e40),
        ("sqeuclidean", torch.float32, 1e20, 1.5e40),
        ("euclidean", torch.float32, 1e19, 2e19),  # whose square is infinite
        ("euclidean", torch.float32, 1e-22, 1.5e-22),  # whose square is hardly a number
        ("cosine", torch.float64, 1e-150, 0.1),
        ("cosine", torch.float64, 1e80, 0.1),
    ],
)
def test_at_the_ends_of_the_range(
    device: torch.device, metric: str, dtype: torch.dtype, scale: float, eps: float
) -> None:
    x = torch.tensor([[1, 0], [1, 0.1], [1, 0.2], [-2, 0.1], [9, 9]], dtype=torch.float64).mul(scale).to(dtype)
    graph = ops.radius_graph(x.to(device), eps, metric=metric)
    assert graph.indices.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 3, 4]
    assert graph.values.isfinite().all()
    assert_same(graph.to("cpu"), reference.radius_graph(x, eps, metric=metric))


def test_more_columns_than_a_product_can_tell_apart() -> None:
    x = torch.zeros(2, 2**23 + 8)
    x[1, 0] = 0.1
    assert ops.radius_graph(x, 1.0).indices.tolist() == [0, 1, 0, 1]


def test_no_value_exceeds_eps_in_float32(device: torch.device) -> None:
    """DBSCAN on the graph at the same eps must keep every pair."""
    x = torch.randint(0, 50, (300, 1), generator=torch.Generator().manual_seed(0)).float()
    for eps in torch.rand(40, generator=torch.Generator().manual_seed(1), dtype=torch.float64).mul(9).tolist():
        scaled = (x / 9 * eps).to(device)
        assert (ops.radius_graph(scaled, eps).values <= torch.tensor(eps, dtype=torch.float32)).all()


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(0, 150),
    d=st.integers(1, 8),
    levels=st.integers(1, 4),
    eps=st.floats(0, 6),
    metric=st.sampled_from(METRICS),
    seed=st.integers(0, 99),
)
def test_ties_of_small_integers(n: int, d: int, levels: int, eps: float, metric: str, seed: int) -> None:
    x = torch.randint(0, levels, (n, d), generator=torch.Generator().manual_seed(seed)).float()
    assert_same(ops.radius_graph(x, eps, metric=metric), reference.radius_graph(x, eps, metric=metric))


def test_opcheck(unit_rows: UnitRows, device: torch.device) -> None:
    x = unit_rows(9, 8).to(device)
    torch.library.opcheck(torch.ops.ise_fast.radius_graph.default, (x, 1.2))


def broken(value: float) -> Tensor:
    x = torch.ones(4, 3, dtype=torch.float64)
    x[2, 1] = value
    return x


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"x": [[1.0]]}, TypeError, "x: expected a torch tensor"),
        ({"x": torch.ones(3)}, ValueError, r"x: expected 2 dimensions, got shape \(3,\)"),
        ({"x": torch.ones(3, 0)}, ValueError, r"x: expected at least one column, got shape \[3, 0\]"),
        ({"x": torch.ones(3, 3).long()}, TypeError, "x: expected dtype float32"),
        ({"x": broken(float("nan")).float()}, ValueError, "x: expected finite values, got NaN or infinity in row 2"),
        ({"x": broken(float("inf"))}, ValueError, "x: expected finite values, got NaN or infinity in row 2"),
        ({"x": broken(1e200)}, ValueError, "x: expected rows whose squared length float64 can hold, .* row 2"),
        ({"eps": -0.1}, ValueError, r"eps: expected a finite number in \[0, inf\), got -0.1"),
        ({"eps": float("nan")}, ValueError, "eps: expected a finite number .* got nan"),
        ({"eps": "1"}, TypeError, "eps: expected a number, got '1'"),
        ({"metric": "manhattan"}, ValueError, "metric: expected one of .* got 'manhattan'"),
    ],
)
def test_bad_input_names_the_argument(arguments: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ops.radius_graph(**{"x": torch.eye(3), "eps": 1.0, **arguments})


def test_the_operator_itself_refuses_bad_input() -> None:
    with pytest.raises(ValueError, match="eps: expected a finite number of at least 0, got -1"):
        torch.ops.ise_fast.radius_graph(torch.eye(3), -1.0)
    with pytest.raises(ValueError, match="x: expected float32 or float64, got int64"):
        torch.ops.ise_fast.radius_graph(torch.eye(3).long(), 1.0)
