"""The losses from float16 and bfloat16 features: one product of numbers of that type for three, and what that costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ise_fast import reference

Rows = Callable[..., Tensor]
Products = Callable[..., None]
HALVES = [torch.float16, torch.bfloat16]


@pytest.fixture
def simt(set_schedule: Callable[[int], None], set_products: Products) -> Any:
    """torch.ops.ise_fast_simt on tensor cores that truncate as an H100's do."""
    set_schedule(0)
    set_products(guard_bits=2)
    return torch.ops.ise_fast_simt


def head(unit_rows: Rows, rows: int, clusters: int, d: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Features of a short type near their centroids, labels, float32 centroids."""
    centroids = unit_rows(clusters, d, 1)
    labels = torch.arange(rows) * 7 % clusters
    return normalize(centroids[labels] + unit_rows(rows, d, 2), dim=1).to(dtype), labels, centroids


def truth_of(
    features: Tensor, labels: Tensor, centroids: Tensor, k: int, autocast: torch.dtype | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The three losses and the gradient of the first by the reference: in float64, or in torch's mixed precision."""
    wide = (lambda x: x.double()) if autocast is None else (lambda x: x.float())
    leaf = wide(features).requires_grad_()
    with torch.autocast("cpu", dtype=autocast, enabled=autocast is not None):
        out = reference.ise_loss(leaf, labels, wide(centroids), 0.25, k=k, temperature=0.1, lp_weight=0.5)
    out.loss.backward()
    assert leaf.grad is not None
    return out.loss.detach(), out.contrastive.detach(), out.label_preserving.detach(), leaf.grad


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(
    ("rows", "clusters", "d", "k"), [(1, 2, 1, 1), (7, 33, 65, 2), (16, 24, 128, 1), (5, 300, 40, 3), (9, 8, 2048, 1)]
)
def test_error_budget(simt: Any, unit_rows: Rows, dtype: torch.dtype, rows: int, clusters: int, d: int, k: int) -> None:
    """|ours - f64| <= 2 |torch's mixed precision - f64| + a third of a rounding; it rounds the similarities, too."""
    features, labels, centroids = head(unit_rows, rows, clusters, d, dtype)
    truth, torchs = (truth_of(features, labels, centroids, k, autocast) for autocast in (None, dtype))
    one, zero = torch.ones(()), torch.zeros(())
    for gram in (None, centroids @ centroids.T):
        out = simt.ise_loss(features, labels, centroids, 0.25, k, 0.1, 0.6, 0.5, gram, True)
        assert [value.dtype for value in out] == [torch.float32] * 6
        gradient = simt.ise_loss_backward(one, zero, zero, features, *out[4:], 0.5)
        assert gradient.dtype == dtype
        for ours, plain, right in zip((*out[:3], gradient), torchs, truth, strict=True):
            rounding = torch.finfo(dtype).eps / 2 * right.abs().max()
            assert (ours - right).abs().max() <= 2 * (plain - right).abs().max() + rounding / 3


@pytest.mark.parametrize("dtype", HALVES)
def test_probabilities_next_to_one_keep_their_gradient(simt: Any, unit_rows: Rows, dtype: torch.dtype) -> None:
    """Weights of 1e-9, far below what float16 holds."""
    centroids, labels = unit_rows(24, 256, 1), torch.arange(6)
    features = normalize(centroids[:6] + 0.1 * unit_rows(6, 256, 2), dim=1).to(dtype)
    leaf = features.double().requires_grad_()
    reference.cluster_nce_loss(leaf, labels, centroids.double(), 0.05).backward()
    assert leaf.grad is not None
    assert leaf.grad.abs().max() < 1e-7
    gradient = simt.cluster_nce_loss(features, labels, centroids, 0.05, True)[1]
    assert (gradient - leaf.grad).abs().max() < 2 * torch.finfo(dtype).eps * leaf.grad.abs().max()


@pytest.mark.parametrize("dtype", HALVES)
def test_centroids_of_a_short_type(simt: Any, unit_rows: Rows, dtype: torch.dtype) -> None:
    """They are what they are in float32, with features of any type."""
    features, labels, centroids = head(unit_rows, 7, 9, 65, dtype)
    short = centroids.to(dtype)
    for rows in (features, features.float()):
        ours, expected = (
            simt.ise_loss(rows, labels, table, 0.25, 2, 0.05, 0.6, 0.1, None, True) for table in (short, short.float())
        )
        assert all(map(torch.equal, ours, expected))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("spread", "scale"), [(3e-4, 1.0), (1.0, 1e-6)])
def test_nearest_centroids_are_those_of_the_numbers_given(
    simt: Any, unit_rows: Rows, dtype: torch.dtype, spread: float, scale: float
) -> None:
    """Centroids that rounding makes equal, and ones below what float16 holds: the supports show which were taken."""
    centroids = normalize(unit_rows(1, 65) + spread * unit_rows(40, 65, 1), dim=1) * scale
    centroids[20] = centroids[0]  # a tie
    features, labels = unit_rows(18, 65, 2).to(dtype), torch.arange(18)
    arguments = (features, labels, centroids, 0.25, 3, 0.05, 0.6, 0.0, None, False)
    ours, expected = simt.ise_loss(*arguments)[3], torch.ops.ise_fast.ise_loss(*arguments)[3]
    assert ours.equal(expected)


@pytest.mark.parametrize("dtype", HALVES)
def test_more_centroids_than_are_rounded_at_once(
    simt: Any, unit_rows: Rows, pretend: Callable[..., None], dtype: torch.dtype
) -> None:
    """A tile after the other (wide_loss.cuh)."""
    features, labels, centroids = head(unit_rows, 5, 60, 16, dtype)
    arguments = (features, labels, centroids, 0.25, 2, 0.1, 0.6, 0.5, None, True)
    expected = simt.ise_loss(*arguments)
    pretend(most_numbers=200)
    for ours, right in zip(simt.ise_loss(*arguments), expected, strict=True):
        assert (ours - right).abs().max() <= 2 * torch.finfo(dtype).eps * right.abs().max()
