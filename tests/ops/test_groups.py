"""The hybrid memory: sums of groups in row order, and the loss on their means."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from loss_rules import assert_within_budget, check_loss_rules, value_and_gradient
from torch import Tensor
from torch.nn.functional import normalize

from ise_fast import ops, reference
from ise_fast.types import Groups

Rows = Callable[..., Tensor]


def memory(n: int, d: int, groups: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Rows near their group's centre; every fifth group owns none; sums and counts follow."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(groups, (n,), generator=g)
    labels[labels % 5 == 4] = 0
    rows = normalize(torch.randn(groups, d, generator=g)[labels] + 0.5 * torch.randn(n, d, generator=g), dim=1)
    return rows, labels, labels.bincount(minlength=groups)


def problem(b: int, d: int, groups: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    table, labels, counts = memory(6 * groups, d, groups)
    sums = torch.zeros(groups, d)
    ops.refresh_groups_(sums, table, ops.group_members(labels, groups), torch.arange(groups))
    index = torch.arange(b) * 7 % len(labels)
    f = normalize(table[index] + 0.3 * table.roll(1, 0)[index], dim=1)
    return f.to(device), sums.to(device), counts.to(device), labels[index].to(device)


@pytest.mark.parametrize(
    ("b", "d", "groups", "tau"), [(1, 1, 1, 0.05), (7, 31, 33, 0.05), (33, 257, 130, 0.05), (5, 16, 40, 0.005)]
)
def test_group_nce_loss(device: torch.device, b: int, d: int, groups: int, tau: float) -> None:
    f, sums, counts, y = problem(b, d, groups, device)
    assert_within_budget(
        lambda x: ops.group_nce_loss(x, sums, counts, y, tau),
        lambda x: reference.group_nce_loss(x, sums, counts, y, tau),
        lambda x: reference.group_nce_loss(x, sums.double(), counts, y, tau),
        f,
        max(1, 0.05 / tau),
    )


def test_tiles_of_groups_are_one_softmax(device: torch.device) -> None:
    """More groups than a tile of the CPU holds, in an order in which the largest logit keeps rising."""
    f, sums, counts, y = problem(3, 8, 40, device)
    sums, counts = (
        torch.cat([sums.repeat(60, 1) * torch.linspace(0.1, 1, 2400, device=device)[:, None]]),
        counts.repeat(60),
    )
    f = f.repeat(400, 1)
    y = y.repeat(400) + 40 * (torch.arange(1200, device=device) % 60)
    assert_within_budget(
        lambda x: ops.group_nce_loss(x, sums, counts, y, 0.05),
        lambda x: reference.group_nce_loss(x, sums, counts, y, 0.05),
        lambda x: reference.group_nce_loss(x, sums.double(), counts, y, 0.05),
        f,
    )


def test_gradient_of_a_row_that_is_nearly_right(device: torch.device) -> None:
    """p_y is 1 to float32: its gradient must not be lost."""
    sums = torch.tensor([[1.0, 0.0], [0.0, 1.0]], device=device)
    f, y, one = (
        torch.tensor([[1.0, 0.0]], device=device),
        torch.tensor([0], device=device),
        torch.ones(2, device=device),
    )
    ours = value_and_gradient(lambda x: ops.group_nce_loss(x, sums, one.long(), y, 0.05, 0.0), f)
    exact = value_and_gradient(
        lambda x: reference.group_nce_loss(x, sums.double(), one.long(), y, 0.05, 0.0), f.double()
    )
    assert 1e-9 < exact[0] < 1e-8
    for mine, truth in zip(ours, exact, strict=True):
        torch.testing.assert_close(mine.double(), truth, rtol=1e-5, atol=0)


def test_rules(device: torch.device) -> None:
    f, sums, counts, y = problem(40, 24, 50, device)
    check_loss_rules("group_nce_loss", lambda x: ops.group_nce_loss(x, sums, counts, y), f)


def test_gradcheck() -> None:
    f, sums, counts, y = (x.double() if x.is_floating_point() else x for x in problem(4, 5, 6, torch.device("cpu")))
    assert torch.autograd.gradcheck(lambda x: ops.group_nce_loss(x, sums, counts, y, 0.5), f.requires_grad_())


def test_opcheck(device: torch.device) -> None:
    f, sums, counts, y = problem(5, 8, 6, device)
    for leaf in (f, f.clone().requires_grad_()):
        arguments = (leaf, sums, counts, y, 0.05, 1e-6, leaf.requires_grad)
        torch.library.opcheck(torch.ops.ise_fast.group_nce_loss.default, arguments)
    torch.library.opcheck(torch.ops.ise_fast.loss_backward.default, (torch.ones((), device=device), f, f, "x"))
    members = ops.group_members(torch.arange(5, device=device), 6)
    torch.library.opcheck(torch.ops.ise_fast.refresh_groups_.default, (sums, f, *members, y))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_refresh_groups_adds_rows_in_order(device: torch.device, dtype: torch.dtype) -> None:
    """Equal to the bit to the loop, groups of one strip and of several; untouched groups stay."""
    for n, d, groups in ((40, 3, 7), (90, 1100, 4)):
        table, labels, _ = memory(n, d, groups)
        members = ops.group_members(labels, groups)
        assert all(map(torch.equal, members, reference.group_members(labels, groups)))
        ours, expected = torch.full((2, groups, d), 5.0, dtype=dtype)
        touched = torch.tensor([2, 0, 2])
        moved = ours.to(device)
        ops.refresh_groups_(moved, table.to(device), Groups(*(x.to(device) for x in members)), touched.to(device))
        reference.refresh_groups_(expected, table, members, touched)
        assert moved.cpu().equal(expected)
        assert (expected[[1, 3]] == 5).all()


def test_refresh_groups_names_the_group_without_a_sum() -> None:
    table = torch.ones(6, 1100)
    table[4, 1050] = torch.nan
    members, sums = ops.group_members(torch.tensor([0, 1, 2, 0, 2, 1]), 3), torch.zeros(3, 1100)
    with pytest.raises(ValueError, match=r"table: expected finite values with finite sums, got NaN .* of group 2"):
        ops.refresh_groups_(sums, table, members, torch.arange(3))
    assert not sums.any()


def test_members_of_nothing() -> None:
    assert [x.tolist() for x in ops.group_members(torch.empty(0, dtype=torch.int64), 2)] == [[0, 0, 0], []]
    assert [x.tolist() for x in ops.group_members(torch.tensor([-1, -1]), 0)] == [[0], []]
    with pytest.raises(ValueError, match="labels: expected -1 to 1, got 0 to 2"):
        ops.group_members(torch.tensor([0, 2]), 2)


GOOD: dict[str, Any] = {
    "features": torch.eye(3),
    "sums": torch.eye(3),
    "counts": torch.ones(3, dtype=torch.int64),
    "labels": torch.arange(3),
}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"features": torch.ones(3, 3, dtype=torch.int64)}, TypeError, "features: expected a floating dtype"),
        ({"features": torch.zeros(0, 3), "labels": torch.arange(0)}, ValueError, "features: expected at least one row"),
        ({"features": torch.eye(3) * math.nan}, ValueError, "features: expected finite values, .* in row 0"),
        ({"sums": torch.ones(3, 2)}, ValueError, "sums: expected size 3 in dimension 1"),
        ({"sums": torch.eye(3) * math.inf}, ValueError, "sums: expected finite values, .* in row 0"),
        ({"sums": torch.full((3, 3), 1e38)}, ValueError, "features: expected products with sums that float32 can hold"),
        ({"counts": torch.tensor([1, 1])}, ValueError, "counts: expected size 3 in dimension 0"),
        ({"counts": torch.tensor([1, -1, 1])}, ValueError, "counts: expected at least 0, got -1 for group 1"),
        (
            {"counts": torch.tensor([1, 0, 1])},
            ValueError,
            "labels: expected groups that own rows, got 1 with none at row 1",
        ),
        ({"labels": torch.tensor([0, 1, 3])}, ValueError, "labels: expected 0 to 2, got 3 at row 2"),
        ({"temperature": 0}, ValueError, "temperature: expected a finite number"),
        ({"eps": -1}, ValueError, "eps: expected a finite number"),
    ],
)
def test_bad_input_names_the_argument(change: dict[str, Any], error: type[Exception], message: str) -> None:
    ops.group_nce_loss(**GOOD)
    if "1e+38" in str(change) or (
        "sums" in change and change["sums"].abs().max() > 1e37 and change["sums"].isfinite().all()
    ):
        change = change | {"features": torch.full((3, 3), 1e2)}
    with pytest.raises(error, match=f"^{message}"):
        ops.group_nce_loss(**GOOD | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"touched": torch.tensor([2])}, "touched: expected 0 to 1, got 2"),
        ({"members": Groups(torch.tensor([0, 1]), torch.tensor([0]))}, "members.indptr: expected size 3"),
        ({"members": Groups(torch.tensor([0, 1, 5]), torch.tensor([0]))}, "members.indptr: expected offsets"),
        ({"members": Groups(torch.tensor([0, 1, 2]), torch.tensor([0, 9]))}, "members.rows: expected 0 to 1, got 9"),
        ({"sums": torch.zeros(2, 3, dtype=torch.float16)}, "sums: expected the dtype of table or float64"),
        ({"sums": torch.zeros(2, 4)}, "sums: expected size 3 in dimension 1"),
        ({"sums": torch.zeros(3, 2).T}, "sums: expected a contiguous tensor"),
    ],
)
def test_refresh_groups_refuses(change: dict[str, Any], message: str) -> None:
    good = {
        "sums": torch.zeros(2, 3),
        "table": torch.ones(2, 3),
        "members": Groups(torch.tensor([0, 1, 2]), torch.tensor([0, 1])),
        "touched": torch.tensor([1, 0]),
    }
    with pytest.raises(ValueError, match=f"^{message}"):
        ops.refresh_groups_(**good | change)
    assert not good["sums"].any()
