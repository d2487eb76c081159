from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ise_fast.nn import CycleAssociationLoss
from ise_fast.nn.cycle_association import cycle_losses


def by_loops(x: Tensor, y: Tensor, delta: float, margin: float) -> float:
    """The definition, an entry at a time, in float64."""
    a, b = (rows.double().tolist() for rows in (x, y))
    n, m = len(a), len(b)

    def row(from_: list[float], to: list[list[float]]) -> list[float]:
        sharpness = math.log(len(to) + 1) / delta
        weights = [math.exp(sharpness * sum(p * q for p, q in zip(from_, v, strict=True))) for v in to]
        return [w / sum(weights) for w in weights]

    there, back = [row(v, b) for v in a], [row(v, a) for v in b]
    g = [[sum(there[i][k] * back[k][j] for k in range(m)) for j in range(n)] for i in range(n)]
    total = 0.0
    for i in range(n):
        for others in ([g[i][j] for j in range(n) if j != i], [g[j][i] for j in range(n) if j != i]):
            total += max(0.0, max(others, default=0.0) - g[i][i] + margin)
    return total / n


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 4), (3, 3), (4, 7)])
def test_the_definition(n: int, m: int) -> None:
    g = torch.Generator().manual_seed(n + m)
    x, y = (normalize(torch.randn(k, 6, generator=g), dim=1) for k in (n, m))
    for delta, margin in ((0.5, 0.5), (0.2, 0.1), (0.5, 1.5)):
        loss = CycleAssociationLoss(delta, margin)
        assert loss(x, y).item() == pytest.approx(by_loops(x, y, delta, margin), rel=1e-5, abs=1e-6)
        assert torch.equal(loss(x, y), loss(y, x)) or n == m  # the smaller set asks


def test_gradient() -> None:
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randn(k, 4, generator=g, dtype=torch.float64).requires_grad_() for k in (3, 5))
    assert torch.autograd.gradcheck(CycleAssociationLoss(), (x, y))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_changes_nothing(dtype: torch.dtype) -> None:
    g = torch.Generator().manual_seed(0)
    x, y = (normalize(torch.randn(k, 16, generator=g), dim=1).to(dtype).requires_grad_() for k in (5, 7))
    n, m = torch.tensor([4]), torch.tensor([6])

    def losses() -> tuple[Tensor, Tensor]:
        return CycleAssociationLoss()(x, y), cycle_losses(x[None], y[None], n, m, 0.5, 0.5)[0]

    with torch.autocast("cpu", torch.bfloat16):
        found = losses()
    for loss, expected in zip(found, losses(), strict=True):
        assert loss.dtype == torch.float32
        assert loss.equal(expected)
        assert torch.autograd.grad(loss, x)[0].equal(torch.autograd.grad(expected, x)[0])


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        (torch.ones(0, 3), torch.ones(2, 3), ValueError, "x: expected at least one row"),
        (torch.ones(2, 3), torch.ones(2, 4), ValueError, "y: expected"),
        (torch.ones(2, 3, dtype=torch.int64), torch.ones(2, 3), TypeError, "x: expected dtype float32"),
    ],
)
def test_bad_input(x: Any, y: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        CycleAssociationLoss()(x, y)
    with pytest.raises(ValueError, match="delta: expected"):
        CycleAssociationLoss(delta=0)
