from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ise_fast import ops, reference
from ise_fast.types import KNN

UnitRows = Callable[..., Tensor]
METRICS = ("sqeuclidean", "euclidean", "cosine")


def knn_blocks(x: Tensor, k: int, y: Tensor | None, metric: str, block: int) -> tuple[KNN, int]:
    """The operator with a chosen block size, and how many rows it had to redo."""
    distances, indices, redone = torch.ops.ise_fast.knn(x, k, y, metric, block)
    return KNN(distances, indices), int(redone)


def assert_same(found: KNN, expected: KNN) -> None:
    assert found.indices.cpu().equal(expected.indices.cpu())
    assert found.distances.cpu().equal(expected.distances.cpu())


def hard_rows(kind: str, n: int, d: int) -> Tensor:
    generator = torch.Generator().manual_seed(n + d)
    x = torch.randn(n, d, generator=generator)
    kinds: dict[str, Callable[[], Tensor]] = {
        "random": lambda: x,
        "integers": lambda: torch.randint(-2, 3, (n, d), generator=generator).float(),
        "copies": lambda: x[torch.arange(n) % max(1, n // 40)],  # 40 of each row, some 41
        "equal": lambda: x[:1].repeat(n, 1),
        "zeros": lambda: torch.zeros(n, d),
        "far": lambda: x + 100,  # far from the origin: the filter cannot tell the rows apart
        "huge": lambda: x * 1e37,
        "tiny": lambda: x * 1e-30,
        "one giant": lambda: x * torch.where(torch.arange(n) == n // 2, 1e20, 1.0)[:, None],
    }
    return kinds[kind]()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", ["random", "integers", "copies", "equal", "zeros", "far", "huge", "tiny", "one giant"])
@pytest.mark.parametrize(("n", "d", "k"), [(1, 1, 1), (31, 33, 7), (65, 2, 65), (300, 70, 30)])
def test_equals_the_reference(device: torch.device, kind: str, n: int, d: int, k: int, metric: str) -> None:
    x = hard_rows(kind, n, d)
    y = torch.cat([hard_rows("random", 5, d), x[:3]])
    for queries in (None, y):
        expected = reference.knn(x, k, y=queries, metric=metric)
        assert_same(
            ops.knn(x.to(device), k, y=None if queries is None else queries.to(device), metric=metric), expected
        )


def test_small_example(device: torch.device) -> None:
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0], [0.0, -1.0]], device=device)
    found = ops.knn(x, 3, metric="euclidean")
    assert found.indices.tolist() == [[0, 2, 3], [1, 2, 0], [2, 0, 3], [3, 0, 2]]
    assert found.distances[0].tolist() == [0.0, 1.0, 1.0]
    assert found.distances[1, 2] == 5.0
    cosine = ops.knn(x, 4, metric="cosine")
    assert cosine.distances[0].tolist() == [1.0] * 4  # a zero row is at distance 1 from every row
    assert cosine.distances[2, 3] == 2.0  # opposite directions


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", ["random", "integers", "copies", "equal"])
def test_blocks_and_threads_do_not_change_the_bits(restore_threads: None, kind: str, metric: str) -> None:
    x, y = hard_rows(kind, 150, 19), hard_rows("random", 40, 19)
    for queries in (None, y):
        torch.set_num_threads(2)
        expected = ops.knn(x, 9, y=queries, metric=metric)
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            for block in (0, 7, 64, 149, 1000):
                assert_same(knn_blocks(x, 9, queries, metric, block)[0], expected)
    tiny = x[:9]
    assert_same(knn_blocks(tiny, 5, None, metric, 1)[0], ops.knn(tiny, 5, metric=metric))


def test_strided_input_and_repeated_calls_give_the_same_bits(unit_rows: UnitRows, device: torch.device) -> None:
    x = unit_rows(137, 66).to(device)
    first = ops.knn(x, 10)
    assert_same(ops.knn(x, 10), first)
    assert_same(ops.knn(x.T.contiguous().T, 10), first)
    assert_same(ops.knn(x.repeat_interleave(2, 0)[::2], 10), first)
    assert_same(ops.knn(x, 10, y=x), first)


def test_half_precision_features_are_converted(unit_rows: UnitRows, device: torch.device) -> None:
    x = unit_rows(50, 16).to(device)
    for dtype in (torch.float16, torch.bfloat16):
        assert_same(ops.knn(x.to(dtype), 5), ops.knn(x.to(dtype).float(), 5))


def test_certified_rows_are_not_redone_and_tied_rows_are(unit_rows: UnitRows, device: torch.device) -> None:
    x = unit_rows(900, 64).to(device)
    assert knn_blocks(x, 30, None, "sqeuclidean", 0)[1] == 0
    equal = x[:1].repeat(900, 1)
    found, redone = knn_blocks(equal, 30, None, "sqeuclidean", 0)
    assert redone == 900
    assert found.indices.cpu().equal(torch.arange(30).expand(900, 30))


def test_products_that_round_one_way_all_along(device: torch.device) -> None:
    # Rows c (1, ..., 1): every term of a float32 inner product is the same, and so is the sign of its rounding errors,
    # which add up to a quarter of the proven bound. Distances differ by less, so the product alone orders rows wrongly.
    spread = 3e-3 * torch.randn(600, 1, generator=torch.Generator().manual_seed(0))
    x = (1 + spread).expand(600, 128).contiguous()
    expected = reference.knn(x, 3)
    by_product = (x.square().sum(1) / 2 - x @ x.T).topk(3, largest=False).indices
    assert (by_product != expected.indices).any(1).sum() > 300
    assert_same(ops.knn(x.to(device), 3), expected)


def test_low_precision_products_change_nothing(unit_rows: UnitRows) -> None:
    x = unit_rows(400, 64)
    expected = ops.knn(x, 10)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")  # on some processors: products in bfloat16
        assert_same(ops.knn(x, 10), expected)
    finally:
        torch.set_float32_matmul_precision(before)


def test_features_that_require_gradients(unit_rows: UnitRows, device: torch.device) -> None:
    x = unit_rows(40, 8).to(device)
    found = ops.knn(x.clone().requires_grad_(), 5)
    assert not found.distances.requires_grad
    assert_same(found, ops.knn(x, 5))


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 200),
    d=st.integers(1, 40),
    levels=st.integers(1, 4),
    metric=st.sampled_from(METRICS),
    data=st.data(),
)
def test_ties_of_small_integers(n: int, d: int, levels: int, metric: str, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, n))
    x = torch.randint(0, levels, (n, d), generator=torch.Generator().manual_seed(data.draw(st.integers(0, 99)))).float()
    assert_same(ops.knn(x, k, metric=metric), reference.knn(x, k, metric=metric))


def test_no_queries(device: torch.device) -> None:
    found = ops.knn(torch.eye(3, device=device), 2, y=torch.empty(0, 3, device=device))
    assert found.distances.shape == found.indices.shape == (0, 2)


def test_opcheck(unit_rows: UnitRows, device: torch.device) -> None:
    x = unit_rows(9, 8).to(device)
    torch.library.opcheck(torch.ops.ise_fast.knn.default, (x, 3))
    torch.library.opcheck(torch.ops.ise_fast.knn.default, (x, 3, x[:4].clone(), "cosine", 2))


def test_compiles_without_a_break(unit_rows: UnitRows) -> None:
    x = unit_rows(20, 8)
    compiled = torch.compile(lambda t: ops.knn(t, 4).indices, fullgraph=True, backend="eager")
    assert compiled(x).equal(ops.knn(x, 4).indices)


X = torch.eye(3)


def broken(value: float) -> Tensor:
    x = torch.ones(4, 3)
    x[2, 1] = value
    return x


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"x": [[1.0]]}, TypeError, "x: expected a torch tensor"),
        ({"x": torch.ones(3)}, ValueError, r"x: expected 2 dimensions, got shape \(3,\)"),
        ({"x": torch.ones(3, 0)}, ValueError, r"x: expected at least one column, got shape \[3, 0\]"),
        ({"x": torch.ones(3, 3).long()}, TypeError, "x: expected dtype float32"),
        ({"x": torch.ones(3, 3).double()}, TypeError, "x: expected dtype float32"),
        ({"x": broken(float("nan"))}, ValueError, "x: expected finite values, got NaN or infinity in row 2"),
        ({"x": broken(float("-inf"))}, ValueError, "x: expected finite values, got NaN or infinity in row 2"),
        ({"y": broken(float("inf"))}, ValueError, "y: expected finite values, got NaN or infinity in row 2"),
        ({"y": torch.ones(2, 4)}, ValueError, r"y: expected size 3 in dimension 1, got shape \[2, 4\]"),
        ({"k": 0}, ValueError, r"k: expected an integer in \[1, 3\] \(x has 3 rows\), got 0"),
        ({"k": 4}, ValueError, r"k: expected an integer in \[1, 3\] \(x has 3 rows\), got 4"),
        ({"x": torch.ones(0, 3)}, ValueError, r"k: expected an integer in \[1, 0\] \(x has 0 rows\), got 2"),
        ({"k": 1.5}, TypeError, "k: expected an integer, got 1.5"),
        ({"metric": "manhattan"}, ValueError, "metric: expected one of .* got 'manhattan'"),
    ],
)
def test_bad_input_names_the_argument(arguments: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ops.knn(**{"x": X, "k": 2, **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X[0], 1), r"x: expected 2 dimensions, got shape \[3\]"),
        ((X.double(), 1), "x: expected float32, got float64"),
        ((X, 4), r"k: expected 1 to 3 \(rows of x\), got 4"),
        ((X, 1, X.double()), "y: expected float32, got float64"),
        ((X, 1, None, "manhattan"), "metric: expected sqeuclidean, euclidean or cosine, got 'manhattan'"),
    ],
)
def test_the_operator_itself_refuses_bad_input(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        torch.ops.ise_fast.knn(*arguments)
