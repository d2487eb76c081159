"""Contrast with weighted targets: error budgets, targets of every kind, hardest negatives, ranges, bad input."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from loss_rules import assert_within_budget, check_loss_rules, value_and_gradient
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from ise_fast import ops, reference


def problem(b: int, d: int, rows: int, s: int, device: torch.device, seed: int = 0) -> dict[str, Tensor]:
    """Features near their first target; repeated columns, absent ones, two equal rows of the table."""
    g = torch.Generator().manual_seed(seed)
    table = normalize(torch.randn(rows, d, generator=g), dim=1)
    table[-1] = table[0]
    columns = torch.randint(rows, (b, s), generator=g)
    weights = torch.rand(b, s, generator=g) / (1 + s // 8)
    if s > 2:
        columns[:, 2] = columns[:, 1]
        columns[::3, -1] = -1
    features = normalize(table[columns[:, 0].clamp_min(0)] + 0.4 * torch.randn(b, d, generator=g) / d**0.5, dim=1)
    made = {"features": features, "table": table, "columns": columns, "weights": weights}
    return {key: value.to(device) for key, value in made.items()}


def budget(p: dict[str, Tensor], tau: float, **options: Any) -> None:
    def run(api: Any, x: Tensor) -> Tensor:
        moved = {k: v.to(x.dtype) if isinstance(v, Tensor) and v.is_floating_point() else v for k, v in p.items()}
        return api.soft_nce_loss(**moved | {"features": x}, temperature=tau, **options)

    assert_within_budget(
        lambda x: run(ops, x),
        lambda x: run(reference, x),
        lambda x: run(reference, x),
        p["features"],
        max(1, 0.05 / tau, 5 * tau),  # hot softmax, soft targets: what is left of the gradient is a difference
    )


@pytest.mark.parametrize(
    ("b", "d", "rows", "s", "tau"),
    [(1, 1, 2, 1, 0.05), (7, 31, 33, 5, 0.05), (33, 257, 130, 3, 0.1), (4, 16, 9, 30, 1.0), (5, 16, 40, 2, 0.01)],
)
@pytest.mark.parametrize("negatives", [0, 1, 12, 10**6])
@pytest.mark.parametrize("smooth", [0.0, 0.1, "rows"])
def test_within_budget(
    device: torch.device, b: int, d: int, rows: int, s: int, tau: float, negatives: int, smooth: Any
) -> None:
    p = problem(b, d, rows, s, device)
    share = torch.linspace(0, 1, b, device=device) if smooth == "rows" else smooth
    budget(p, tau, negatives=negatives, smooth=share)


@pytest.mark.parametrize("negatives", [0, 4])
@pytest.mark.parametrize("smooth", [0.0, 0.2])
def test_ranges_and_excluded_rows(device: torch.device, negatives: int, smooth: float) -> None:
    p = problem(12, 17, 60, 2, device)
    group = torch.arange(12, device=device) % 3
    p["columns"] = 20 * group[:, None] + p["columns"] % 20
    ranges = torch.stack([20 * group, 20 * group + 20], dim=1)
    free = 20 * group + 19
    p["columns"] -= (p["columns"] == free[:, None]).long()
    excluded = torch.stack([free, (free + 20) % 60, free, torch.full_like(free, -1)], dim=1)
    budget(p, 0.05, negatives=negatives, smooth=smooth, ranges=ranges, excluded=excluded)


def test_one_hot_targets_are_cross_entropy(device: torch.device) -> None:
    p = problem(9, 16, 30, 1, device)
    p["weights"] = torch.ones_like(p["weights"])
    logits = p["features"] @ p["table"].T / 0.1
    for smooth in (0.0, 0.1):
        expected = cross_entropy(logits, p["columns"][:, 0], label_smoothing=smooth)
        torch.testing.assert_close(ops.soft_nce_loss(**p, temperature=0.1, smooth=smooth), expected)


def test_tiles_of_the_table_are_one_softmax(device: torch.device) -> None:
    """More rows than a tile of the CPU holds; logits far beyond exp, the largest in the last tile."""
    p = problem(1100, 6, 2500, 3, device)
    p["table"] = p["table"] * torch.linspace(0.1, 30, 2500, device=device)[:, None]
    budget(p, 0.05)


def test_gradient_of_a_row_that_is_nearly_right(device: torch.device) -> None:
    p = {
        "features": torch.tensor([[1.0, 0.0]]),
        "table": torch.eye(2),
        "columns": torch.tensor([[0]]),
        "weights": torch.ones(1, 1),
    }
    for negatives in (0, 1):
        ours = value_and_gradient(
            lambda x, n=negatives: ops.soft_nce_loss(x, *(v.to(device) for v in list(p.values())[1:]), negatives=n),
            p["features"].to(device),
        )
        table = p["table"].double()
        truth = value_and_gradient(
            lambda x, t=table: reference.soft_nce_loss(x, t, p["columns"], p["weights"]), p["features"].double()
        )
        assert 1e-9 < truth[0] < 1e-8
        for mine, exact in zip(ours, truth, strict=True):
            torch.testing.assert_close(mine.double().cpu(), exact, rtol=1e-5, atol=0)


def test_hardest_negatives_are_exact_under_ties(device: torch.device) -> None:
    """Copies of one row tie: the gradient names which of them were taken, by index."""
    table = torch.zeros(50, 51)
    table[:, 50] = 1
    table[torch.arange(50), torch.arange(50)] = 0.5
    f = torch.zeros(1, 51)
    f[0, 50] = 1
    arguments = table.to(device), torch.tensor([[3]], device=device), torch.ones(1, 1, device=device)
    _, gradient = value_and_gradient(lambda x: ops.soft_nce_loss(x, *arguments, 0.05, negatives=5), f.to(device))
    assert gradient[0, :50].nonzero()[:, 0].tolist() == [0, 1, 2, 3, 4, 5]


def test_samples_without_targets_or_negatives(device: torch.device) -> None:
    p = problem(3, 8, 12, 2, device)
    p["columns"][1] = -1
    p["weights"][2] = 0
    ranges = torch.tensor([[0, 12], [5, 5], [0, 12]], device=device)
    for negatives in (0, 3):
        value, gradient = value_and_gradient(
            lambda x, n=negatives: ops.soft_nce_loss(**p | {"features": x}, negatives=n, ranges=ranges), p["features"]
        )
        alone = ops.soft_nce_loss(**{k: v[:1] if k != "table" else v for k, v in p.items()}, negatives=negatives)
        torch.testing.assert_close(value, alone / 3)
        assert not gradient[1:].any()


@pytest.mark.parametrize("negatives", [0, 5])
def test_rules(device: torch.device, negatives: int) -> None:
    p = problem(40, 24, 50, 3, device)

    def loss(x: Tensor) -> Tensor:
        return ops.soft_nce_loss(**p | {"features": x}, smooth=0.1, negatives=negatives)

    check_loss_rules("soft_nce_loss", loss, p["features"])


@pytest.mark.parametrize("negatives", [0, 2])
def test_gradcheck(negatives: int) -> None:
    p = {k: v.double() if v.is_floating_point() else v for k, v in problem(4, 5, 7, 3, torch.device("cpu")).items()}

    def loss(x: Tensor) -> Tensor:
        return ops.soft_nce_loss(**p | {"features": x}, temperature=0.5, smooth=0.2, negatives=negatives)

    assert torch.autograd.gradcheck(loss, p["features"].clone().requires_grad_())


def test_opcheck(device: torch.device) -> None:
    p = problem(5, 8, 6, 2, device)
    smooth, ranges = torch.zeros(5, device=device), torch.tensor([[0, 6]] * 5, device=device)
    for leaf in (p["features"], p["features"].clone().requires_grad_()):
        arguments = (leaf, p["table"], p["columns"], p["weights"], 0.05)
        for options in ((None, 0, None, None), (smooth, 3, ranges, torch.full_like(ranges, -1))):
            torch.library.opcheck(torch.ops.ise_fast.soft_nce_loss.default, (*arguments, *options, leaf.requires_grad))


GOOD: dict[str, Any] = {
    "features": torch.eye(3),
    "table": torch.eye(3),
    "columns": torch.arange(3)[:, None],
    "weights": torch.ones(3, 1),
}


@pytest.mark.parametrize("negatives", [0, 1])
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"features": torch.ones(3, 3, dtype=torch.int64)}, TypeError, "features: expected a floating dtype"),
        ({"features": torch.zeros(0, 3)}, ValueError, "features: expected at least one row"),
        ({"features": torch.eye(3) * math.nan}, ValueError, "features: expected finite values, .* in row 0"),
        ({"table": torch.ones(3, 2)}, ValueError, "table: expected size 3 in dimension 1"),
        ({"table": torch.eye(3) * -math.inf}, ValueError, "table: expected finite values, .* in row 0"),
        ({"table": torch.eye(3).double()}, ValueError, "table: expected float32, got float64"),
        ({"columns": torch.tensor([[0], [1], [3]])}, ValueError, "columns: expected -1 to 2, got 3 at row 2"),
        ({"columns": torch.tensor([[0], [1], [-2]])}, ValueError, "columns: expected -1 to 2, got -2 at row 2"),
        ({"columns": torch.ones(3, 1)}, ValueError, "columns: expected int64"),
        ({"columns": torch.ones(2, 1, dtype=torch.int64)}, ValueError, "columns: expected size 3 in dimension 0"),
        ({"weights": -torch.ones(3, 1)}, ValueError, "weights: expected finite numbers of at least 0, got -1 at row 0"),
        ({"weights": torch.ones(3, 2)}, ValueError, "weights: expected size 1 in dimension 1"),
        ({"smooth": 1.5}, ValueError, r"smooth: expected a finite number in \[0, 1\]"),
        ({"smooth": torch.tensor([0, 0, 2.0])}, ValueError, r"smooth: expected numbers in \[0, 1\], got 2 at row 2"),
        ({"smooth": torch.zeros(2)}, ValueError, "smooth: expected size 3 in dimension 0"),
        ({"ranges": torch.tensor([[0, 3], [2, 1], [0, 3]])}, ValueError, "ranges: expected 0 <= first <= end <= 3"),
        (
            {"ranges": torch.tensor([[1, 3], [0, 3], [0, 3]])},
            ValueError,
            "columns: expected rows of the sample's range",
        ),
        ({"excluded": torch.tensor([[-1], [1], [-1]])}, ValueError, "columns: expected rows of the sample's range"),
        ({"excluded": torch.tensor([[-1], [5], [-1]])}, ValueError, "excluded: expected -1 to 2, got 5 at row 1"),
        ({"temperature": 0}, ValueError, "temperature: expected a finite number"),
    ],
)
def test_bad_input_names_the_argument(
    negatives: int, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    ops.soft_nce_loss(**GOOD, negatives=negatives)
    with pytest.raises(error, match=f"^{message}"):
        ops.soft_nce_loss(**GOOD | change, negatives=negatives)
    with pytest.raises(ValueError, match=r"^negatives: expected an integer of at least 0"):
        ops.soft_nce_loss(**GOOD, negatives=-1)
