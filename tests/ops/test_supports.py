"""The compiled support samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from golden_data import load, names
from torch import Tensor

from ise_fast import ops, reference

UnitRows = Callable[..., Tensor]


@pytest.mark.parametrize("name", names("head"))
def test_golden(name: str, device: torch.device) -> None:
    g = load(name)
    f, c, y, m = (g[key].to(device) for key in ("features", "memory_before", "labels", "nearest"))
    supports = ops.support_samples(f, c, y, m, g["effective_lambda"])
    torch.testing.assert_close(supports.flatten(0, 1).cpu(), g["supports"], rtol=0, atol=1e-7)


@pytest.mark.parametrize(("b", "clusters", "d", "k"), [(1, 2, 1, 1), (7, 5, 33, 4), (33, 9, 257, 2)])
def test_equals_the_reference(unit_rows: UnitRows, device: torch.device, b: int, clusters: int, d: int, k: int) -> None:
    f, c = unit_rows(b, d, 1).requires_grad_(), unit_rows(clusters, d, 2)
    y = torch.arange(b) % clusters
    m = reference.nearest_centroids(f, c, y, k).indices
    weights = unit_rows(b * k, d, 3).unflatten(0, (b, k))
    expected = reference.support_samples(f, c, y, m, 0.3)
    (expected_grad,) = torch.autograd.grad((expected * weights).sum(), f)
    leaf = f.detach().to(device).requires_grad_()
    ours = ops.support_samples(leaf, c.to(device), y.to(device), m.to(device), 0.3)
    (grad,) = torch.autograd.grad((ours * weights.to(device)).sum(), leaf)
    torch.testing.assert_close(ours.cpu(), expected, rtol=0, atol=1.2e-7)
    torch.testing.assert_close(grad.cpu(), expected_grad, rtol=0, atol=2e-6)


def test_gradcheck_and_refused_second_derivative() -> None:
    generator = torch.Generator().manual_seed(1)
    f = torch.randn(3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    c = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    y, m = torch.tensor([0, 2, 2]), torch.tensor([[1, 2], [0, 1], [3, 0]])
    assert torch.autograd.gradcheck(lambda x: ops.support_samples(x, c, y, m, 0.25), f)
    (gradient,) = torch.autograd.grad(ops.support_samples(f, c, y, m, 0.25).sum(), f, create_graph=True)
    with pytest.raises(NotImplementedError, match="support_samples: second derivatives"):
        gradient.sum().backward()
    with pytest.raises(NotImplementedError, match="support_samples: forward-mode derivatives"):
        torch.func.jvp(lambda x: ops.support_samples(x, c, y, m, 0.25), (f.detach(),), (f.detach(),))


def test_zero_stays_zero(device: torch.device) -> None:
    f = torch.zeros(1, 3, device=device, requires_grad=True)
    c = torch.eye(3, device=device)
    supports = ops.support_samples(f, c, torch.tensor([0], device=device), torch.tensor([[1]], device=device), 0.0)
    assert supports.tolist() == [[[0, 0, 0]]]


def test_opcheck_strided_and_empty(unit_rows: UnitRows, device: torch.device) -> None:
    f, c = unit_rows(5, 8).to(device), unit_rows(7, 8, 1).to(device)
    y, m = torch.arange(5, device=device), torch.tensor([[6, 5]], device=device).expand(5, 2)
    for leaf in (f, f.clone().requires_grad_()):
        torch.library.opcheck(torch.ops.ise_fast.support_samples.default, (leaf, c, y, m, 0.25))
    expected = ops.support_samples(f, c, y, m, 0.25)
    assert ops.support_samples(f.T.contiguous().T, c.T.contiguous().T, y, m.contiguous(), 0.25).equal(expected)
    assert ops.support_samples(f[:0], c, y[:0], m[:0], 0.25).shape == (0, 2, 8)


GOOD: dict[str, Any] = {
    "features": torch.eye(3),
    "centroids": torch.eye(3),
    "labels": torch.arange(3),
    "nearest": torch.tensor([[1], [2], [0]]),
    "degree": 0.25,
}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"nearest": torch.tensor([[1], [2], [3]])}, ValueError, "nearest: expected 0 to 2, got 3 at row 2"),
        ({"nearest": torch.tensor([1, 2, 0])}, ValueError, r"nearest: expected 2 dimensions, got shape \[3\]"),
        ({"nearest": torch.tensor([[1]])}, ValueError, r"nearest: expected size 3 in dimension 0, got shape \[1, 1\]"),
        ({"degree": 1.1}, ValueError, "degree: "),
        ({"labels": torch.tensor([0, 1, 5])}, ValueError, "labels: expected 0 to 2, got 5 at row 2"),
        ({"features": torch.arange(9).view(3, 3)}, TypeError, "features: expected a floating dtype, got int64"),
    ],
)
def test_bad_input_names_the_argument(change: dict[str, Any], error: type[Exception], message: str) -> None:
    ops.support_samples(**GOOD)
    with pytest.raises(error, match=f"^{message}"):
        ops.support_samples(**GOOD | change)
