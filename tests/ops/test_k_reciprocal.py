"""The compiled k-reciprocal encoding against the reference, and the traps of its definition."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from pseudo_label_data import clustered, same_bits, with_threads
from torch import Tensor

from ise_fast import ops, reference
from ise_fast.reference.k_reciprocal import half_width
from ise_fast.types import CSRGraph

UnitRows = Callable[..., Tensor]


def assert_equals_reference(x: Tensor, k1: int, k2: int) -> CSRGraph:
    """The same entries; weights within 4 units in the last place (the reference's exp is another one)."""
    found, expected = ops.k_reciprocal_encoding(x, k1, k2), reference.k_reciprocal_encoding(x.cpu(), k1, k2)
    assert found.indptr.cpu().equal(expected.indptr)
    assert found.indices.cpu().equal(expected.indices)
    assert found.indices.dtype == torch.int32
    torch.testing.assert_close(found.values.cpu(), expected.values, rtol=5e-7, atol=1e-30)
    return found


@pytest.mark.parametrize(
    ("n", "d", "k1", "k2"),
    [(60, 8, 1, 1), (60, 8, 2, 2), (61, 7, 5, 1), (61, 7, 5, 2), (90, 16, 7, 3), (150, 31, 12, 6), (150, 33, 25, 6),
     (300, 64, 30, 6), (31, 16, 30, 30), (257, 65, 64, 10), (200, 40, 70, 6)],
)  # fmt: skip
def test_equals_reference(unit_rows: UnitRows, device: torch.device, n: int, d: int, k1: int, k2: int) -> None:
    v = assert_equals_reference(clustered(unit_rows, n, d).to(device), k1, k2)
    sums = torch.zeros(n, device=device).index_add(0, rows_of(v), v.values)
    torch.testing.assert_close(sums, torch.ones(n, device=device), rtol=0, atol=1e-5)


def rows_of(graph: CSRGraph) -> Tensor:
    return torch.arange(graph.shape[0], device=graph.device).repeat_interleave(graph.indptr.diff())


@pytest.mark.parametrize("k2", [1, 3])
def test_ties_and_duplicates(device: torch.device, k2: int) -> None:
    """Integer coordinates, where nearly every distance occurs many times, and 40 copies of one point."""
    x = torch.randint(0, 3, (150, 4), generator=torch.Generator().manual_seed(0)).float()
    x[20:60] = x[3]
    assert_equals_reference(x.to(device), 30, k2)


def test_all_rows_equal(device: torch.device) -> None:
    assert_equals_reference(torch.ones(50, 3, device=device), 10, 4)


def test_rows_crowded_out_of_their_own_list_are_empty(device: torch.device) -> None:
    """40 copies, k1 = 30: rows 30 to 39 are in nobody's list, their own included."""
    x = torch.tensor([[0.6, 0.8]], device=device).repeat(40, 1)
    assert ops.k_reciprocal_encoding(x, 30, 1).indptr.diff().tolist() == [30] * 30 + [0] * 10
    assert ops.k_reciprocal_encoding(x, 30, 2).indptr.diff().tolist() == [30] * 40  # the mean of rows 0 and 1


def test_k2_of_one_is_no_expansion(device: torch.device) -> None:
    """Row 1 is a copy of row 0, so its first neighbour is row 0; its own weights must stay its own."""
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], device=device)
    v = ops.k_reciprocal_encoding(x, 1, 1)
    assert v.indptr.tolist() == [0, 1, 1, 2]
    assert v.indices.tolist() == [0, 2]


def test_features_far_from_unit_length_give_finite_weights(device: torch.device) -> None:
    """Exponents underflow, but nothing overflows: the maximum is subtracted in float64."""
    x = 1e19 * torch.randn(40, 5, generator=torch.Generator().manual_seed(0)).to(device)
    values = ops.k_reciprocal_encoding(x, 10, 3).values
    assert values.isfinite().all()
    assert values.eq(0).any()


def test_hub(unit_rows: UnitRows, device: torch.device) -> None:
    """One row near everybody: a column of V' with very many entries."""
    x = torch.nn.functional.normalize(unit_rows(300, 300) + 2 * unit_rows(1, 300, 7), dim=1)
    x[0] = unit_rows(1, 300, 7)
    v = assert_equals_reference(x.to(device), 10, 6)
    assert v.indices.eq(0).sum() > 100


def test_strided_half_and_repeated_input_give_the_same_bits(unit_rows: UnitRows, device: torch.device) -> None:
    x = clustered(unit_rows, 130, 24).half().float().to(device)
    first = ops.k_reciprocal_encoding(x, 12, 4)
    for other in (x.clone(), x.T.contiguous().T, x.repeat_interleave(2, 0)[::2], x.half()):
        assert same_bits(ops.k_reciprocal_encoding(other, 12, 4), first)


def test_threads_do_not_change_the_bits(unit_rows: UnitRows) -> None:
    x = clustered(unit_rows, 400, 33)
    one, two, four = with_threads(lambda: ops.k_reciprocal_encoding(x, 20, 6))
    assert same_bits(one, two)
    assert same_bits(one, four)


def test_one_row(device: torch.device) -> None:
    v = ops.k_reciprocal_encoding(torch.ones(1, 4, device=device), 1, 1)
    assert (v.indptr.tolist(), v.indices.tolist(), v.values.tolist()) == ([0, 1], [0], [1.0])


@pytest.mark.parametrize("k1", range(1, 60))
def test_half_sets_round_half_to_even(k1: int) -> None:
    """The published rule, seen through the operator: on a ring, the half width decides what joins R*."""
    angle = torch.arange(64) * (2 * math.pi / 64) + torch.linspace(0, 0.02, 64)
    x = torch.stack([angle.cos(), angle.sin()], 1)
    assert half_width(k1) == min(int(np.around(k1 / 2)) + 1, k1)
    assert_equals_reference(x, k1, 1)


def test_opcheck(unit_rows: UnitRows, device: torch.device) -> None:
    x = unit_rows(20, 6).to(device)
    nn = reference.knn(x, 5).indices
    torch.library.opcheck(torch.ops.ise_fast.k_reciprocal_encoding.default, (x, nn, 2))


def test_empty(device: torch.device) -> None:
    x, nn = torch.empty(0, 4, device=device), torch.empty(0, 3, dtype=torch.int64, device=device)
    indptr, indices, values = torch.ops.ise_fast.k_reciprocal_encoding(x, nn, 2)
    assert (indptr.tolist(), indices.tolist(), values.tolist()) == ([0], [], [])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"k1": 41}, ValueError, r"k1: expected an integer in \[1, 40\] \(x has 40 rows\), got 41"),
        ({"k1": 0}, ValueError, r"k1: expected an integer in \[1, 40\]"),
        ({"k1": 3.0}, TypeError, "k1: expected an integer, got 3.0"),
        ({"k2": 0}, ValueError, r"k2: expected an integer in \[1, 10\] \(k1\), got 0"),
        ({"k2": 11}, ValueError, r"k2: expected an integer in \[1, 10\] \(k1\), got 11"),
        ({"x": torch.full((40, 2), math.nan)}, ValueError, "x: expected finite values, got NaN or infinity in row 0"),
        ({"x": torch.zeros(40)}, ValueError, "x: expected 2 dimensions"),
        ({"x": torch.zeros(40, 2).double()}, TypeError, "x: expected dtype"),
        ({"x": torch.zeros(0, 2)}, ValueError, "k1: expected an integer in .1, 0. .x has 0 rows., got 10"),
    ],
)
def test_bad_input(change: dict[str, object], error: type[Exception], message: str) -> None:
    good = {"x": torch.randn(40, 2), "k1": 10, "k2": 3}
    ops.k_reciprocal_encoding(**good)
    with pytest.raises(error, match=f"^{message}"):
        ops.k_reciprocal_encoding(**good | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nn": torch.tensor([[0, 1], [1, 3], [2, 0]])}, "nn: expected 0 to 2, got 3 in row 1"),
        ({"nn": torch.tensor([[0, 1], [1, 0], [2, -1]])}, "nn: expected 0 to 2, got -1 in row 2"),
        ({"nn": torch.zeros(2, 2, dtype=torch.int64)}, "nn: expected size 3 in dimension 0"),
        ({"nn": torch.zeros(3, 0, dtype=torch.int64)}, "nn: expected at least one column"),
        ({"nn": torch.zeros(3, 2, dtype=torch.int32)}, "nn: expected int64, got int32"),
        ({"nn": torch.zeros(3, dtype=torch.int64)}, "nn: expected 2 dimensions"),
        ({"x": torch.zeros(3, 2).double()}, "x: expected float32, got float64"),
        ({"k2": 3}, "k2: expected 1 to 2, got 3"),
        ({"k2": 0}, "k2: expected 1 to 2, got 0"),
    ],
)
def test_bad_neighbour_table(change: dict[str, object], message: str) -> None:
    good = {"x": torch.eye(3)[:, :2], "nn": torch.tensor([[0, 1], [1, 0], [2, 0]]), "k2": 1}
    torch.ops.ise_fast.k_reciprocal_encoding(**good)
    with pytest.raises(ValueError, match=f"^{message}"):
        torch.ops.ise_fast.k_reciprocal_encoding(**good | change)


def test_neighbour_tables_with_repeats_do_no_harm() -> None:
    """No table of knn has them; the operator must stay within its memory all the same."""
    generator = torch.Generator().manual_seed(0)
    for n, k in ((1, 7), (2, 9), (5, 40), (40, 3)):
        x, nn = torch.randn(n, 3, generator=generator), torch.randint(0, n, (n, k), generator=generator)
        indptr, indices, values = torch.ops.ise_fast.k_reciprocal_encoding(x, nn, k)
        graph = CSRGraph(indptr, indices, values)
        assert graph.to_scipy().has_canonical_format
        assert values.isfinite().all()
