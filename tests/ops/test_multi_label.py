"""Cycle consistency by counts against sorted lists, and the multi-label loss."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from loss_rules import assert_within_budget, check_loss_rules, value_and_gradient
from torch import Tensor
from torch.nn.functional import normalize

from ise_fast import ops, reference
from ise_fast.types import CSRGraph


def memory(n: int, d: int, kind: str, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    centres = torch.randn(max(1, n // 9), d, generator=g)
    x = centres[torch.randint(len(centres), (n,), generator=g)] + 0.8 * torch.randn(n, d, generator=g)
    if kind == "copies":
        x = x[torch.arange(n) % max(1, n // 3)]
    if kind == "grid":
        x = x.sign()  # many equal similarities
    x = normalize(x, dim=1)
    if kind == "started":
        x[n // 2 :] = 0
    return x


@pytest.mark.parametrize("kind", ["clusters", "copies", "grid", "started"])
@pytest.mark.parametrize(("n", "d"), [(1, 1), (60, 3), (190, 12)])
@pytest.mark.parametrize(("threshold", "least"), [(0.6, 10), (0.3, 1), (-1.0, 5)])
def test_positives_equal_sorted_lists(
    device: torch.device, kind: str, n: int, d: int, threshold: float, least: int
) -> None:
    table, rows = memory(n, d, kind), torch.arange(0, n, 7)
    ours = ops.cycle_positives(table.to(device), rows.to(device), threshold, least)
    expected = reference.cycle_positives(table, rows, threshold, least)
    assert ours.shape == expected.shape
    assert ours.indptr.cpu().equal(expected.indptr)
    assert ours.indices.cpu().equal(expected.indices)
    torch.testing.assert_close(ours.values.cpu(), expected.values, rtol=0, atol=1e-7)


def test_long_chains_ask_for_longer_lists() -> None:
    """A line of points whose lists reach far: more than 32 candidates pass."""
    angle = torch.linspace(0, 0.4, 120)
    table = torch.stack([angle.cos(), angle.sin()], dim=1)
    ours, expected = (api.cycle_positives(table, torch.tensor([0, 60]), 0.5, 150) for api in (ops, reference))
    assert ours.indptr.equal(expected.indptr)
    assert ours.indptr[1] == 120
    assert ours.indices.equal(expected.indices)


def problem(b: int, n: int, d: int, device: torch.device) -> tuple[Tensor, Tensor, CSRGraph]:
    table = memory(n, d, "clusters")
    rows = torch.arange(b) * 5 % n
    features = normalize(table[rows] + 0.3 * memory(b, d, "clusters", seed=1), dim=1)
    positives = ops.cycle_positives(table, rows, 0.6, 5)
    return features.to(device), table.to(device), positives.to(device)


@pytest.mark.parametrize(("b", "n", "d", "share"), [(1, 120, 1, 0.1), (9, 250, 33, 0.1), (3, 30, 4, 1)])
def test_loss(device: torch.device, b: int, n: int, d: int, share: float) -> None:
    f, table, positives = problem(b, n, d, device)
    assert_within_budget(
        lambda x: ops.multi_label_loss(x, table, positives, 5.0, share),
        lambda x: reference.multi_label_loss(x, table, positives, 5.0, share),
        lambda x: reference.multi_label_loss(x, table.double(), positives, 5.0, share),
        f,
        2,
    )


def test_tiles_of_the_table_are_one_search() -> None:
    """A batch so large that the table comes in two tiles, against its halves."""
    f, table, positives = problem(1100, 1100, 8, torch.device("cpu"))
    at = int(positives.indptr[550])
    first = CSRGraph(positives.indptr[:551], positives.indices[:at], positives.values[:at], (550, 1100))
    second = CSRGraph(positives.indptr[550:] - at, positives.indices[at:], positives.values[at:], (550, 1100))
    whole, gradient = value_and_gradient(lambda x: ops.multi_label_loss(x, table, positives), f)
    for part, own in ((f[:550], first), (f[550:], second)):
        half, half_gradient = value_and_gradient(lambda x, own=own: ops.multi_label_loss(x, table, own), part)
        whole = whole - half / 2
        offset = 0 if own is first else 550
        torch.testing.assert_close(gradient[offset : offset + 550], half_gradient / 2, rtol=1e-5, atol=1e-8)
    assert whole.abs() < 1e-6


def test_hardest_are_exact_under_ties(device: torch.device) -> None:
    table = torch.cat([torch.eye(50) * 0.5, torch.ones(50, 1)], dim=1).to(device)
    f = torch.zeros(1, 51, device=device)
    f[0, 50] = 1
    own = CSRGraph(
        torch.tensor([0, 1], device=device), torch.tensor([2], dtype=torch.int32, device=device), f[0, :1], (1, 50)
    )
    _, gradient = value_and_gradient(lambda x: ops.multi_label_loss(x, table, own, 1.0, 0.1), f)
    assert (gradient[0, :50] > 0).nonzero()[:, 0].tolist() == [0, 1, 3, 4]


def test_rules(device: torch.device) -> None:
    f, table, positives = problem(40, 150, 24, device)
    check_loss_rules("multi_label_loss", lambda x: ops.multi_label_loss(x, table, positives, 5.0, 0.05), f)


def test_gradcheck() -> None:
    f, table, positives = problem(4, 30, 5, torch.device("cpu"))
    f, table = f.double().requires_grad_(), table.double()
    assert torch.autograd.gradcheck(lambda x: ops.multi_label_loss(x, table, positives, 5.0, 0.2), f)


def test_opcheck(device: torch.device) -> None:
    f, table, positives = problem(5, 30, 6, device)
    operators = torch.ops.ise_fast
    for leaf in (f, f.clone().requires_grad_()):
        arguments = (leaf, table, positives.indptr, positives.indices, 5.0, 0.1, leaf.requires_grad)
        torch.library.opcheck(operators.multi_label_loss.default, arguments)
    torch.library.opcheck(operators.cycle_positives.default, (table, torch.arange(3, device=device), 0.5, 3))


def graph(*columns: list[int], rows: int = 200) -> CSRGraph:
    indptr = torch.tensor([0, *(len(c) for c in columns)]).cumsum(0)
    flat = torch.tensor([x for c in columns for x in c], dtype=torch.int32)
    return CSRGraph(indptr, flat, torch.ones(len(flat)), (len(columns), rows))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positives": graph([0], [1], rows=9)}, r"positives: expected a graph of shape \(2, 200\)"),
        ({"positives": graph([0], [])}, "positives: expected at least one column a row, got none in row 1"),
        ({"positives": graph([0], [200])}, "positives.*: expected 0 to 199, got 200"),
        ({"positives": graph([0], [3, 2])}, "positives.indices: expected ascending columns"),
        (
            {"hard_share": 0.001},
            r"hard_share: expected at least one hard negative, got int\(0.001 \* 199\) = 0 in row 0",
        ),
        ({"hard_share": 1.5}, "hard_share: expected a finite number"),
        ({"delta": -1}, "delta: expected a finite number"),
        ({"delta": 1e300}, "delta: expected one for which the dtype can hold the loss"),
        ({"features": torch.full((2, 4), torch.nan)}, "features: expected finite values, .* in row 0"),
        ({"table": torch.full((200, 4), torch.inf)}, "table: expected finite values, .* in row 0"),
    ],
)
def test_bad_input(change: dict[str, Any], message: str) -> None:
    good = {"features": torch.ones(2, 4), "table": torch.ones(200, 4), "positives": graph([0], [1])}
    ops.multi_label_loss(**good)
    with pytest.raises(ValueError, match=f"^{message}"):
        ops.multi_label_loss(**good | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": torch.tensor([3])}, "rows: expected 0 to 2, got 3 at row 0"),
        ({"least": 0}, "least: expected an integer of at least 1"),
        ({"threshold": float("nan")}, "threshold: expected a finite number"),
        ({"table": torch.eye(3) / 0}, "table: expected finite values"),
        ({"table": 1e25 * torch.eye(3)}, "table: expected inner products with each other that float32 can hold"),
    ],
)
def test_cycle_positives_refuses(change: dict[str, Any], message: str) -> None:
    good = {"table": torch.eye(3), "rows": torch.tensor([1])}
    with pytest.raises(ValueError, match=f"^{message}"):
        ops.cycle_positives(**good | change)
