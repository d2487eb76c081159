"""What the answers owe to the library's products: nothing but time, whatever arithmetic the user's settings give it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

Rows = Callable[..., Tensor]
Products = Callable[..., None]

EXACT = ("kmeans_step", "cycle_positives")  # bit for bit; losses are sums in another order


@pytest.fixture
def simt(set_schedule: Callable[[int], None]) -> Any:
    """torch.ops.ise_fast_simt under one schedule: here it is the library that varies."""
    set_schedule(0)
    return torch.ops.ise_fast_simt


def crowded_head(unit_rows: Rows, rows: int, clusters: int, d: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features, labels, and centroids so close to each other that 11 bits of a product do not tell them apart."""
    centroids = torch.nn.functional.normalize(unit_rows(1, d) + 3e-4 * unit_rows(clusters, d, 1), dim=1)
    centroids[clusters // 2] = centroids[0]  # a tie
    return unit_rows(rows, d, 2), torch.arange(rows) % clusters, centroids


def test_head_is_exact_under_tensor_float_32(simt: Any, unit_rows: Rows, set_products: Products) -> None:
    features, labels, centroids = crowded_head(unit_rows, 6, 40, 65)
    arguments = (features, centroids, labels, 3)
    expected = torch.ops.ise_fast.nearest_centroids(*arguments)
    set_products(tensor_float_32=True)
    for found, right in zip(simt.nearest_centroids(*arguments), expected, strict=True):
        assert found.equal(right)


@pytest.mark.parametrize("guard_bits", [0, 2])
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_head_is_exact_on_truncating_tensor_cores(
    simt: Any, unit_rows: Rows, set_products: Products, guard_bits: int, scale: float
) -> None:
    """float32 rows go as two float16 numbers each, scaled row by row."""
    features, labels, centroids = crowded_head(unit_rows, 6, 40, 65)
    features[1] *= scale
    arguments = (features, centroids, labels, 3)
    expected = torch.ops.ise_fast.nearest_centroids(*arguments)
    set_products(guard_bits=guard_bits)
    for found, right in zip(simt.nearest_centroids(*arguments), expected, strict=True):
        assert found.equal(right)


def test_filters_are_exact_among_rows_that_float16_does_not_tell_apart(
    simt: Any, unit_rows: Rows, set_products: Products
) -> None:
    features, labels, table = crowded_head(unit_rows, 6, 40, 65)
    features = torch.nn.functional.normalize(features + 3 * table[0], dim=1)
    columns, weights = labels[:, None], torch.ones(6, 1)
    arguments = {
        "kmeans_step": (features, table),
        "cycle_positives": (table, torch.arange(0, 40, 7), 0.5, 3),
        "soft_nce_loss": (features, table, columns, weights, 0.05, None, 5, None, None, True),
        "multi_label_loss": (features, table, torch.arange(7), labels.int(), 5.0, 0.1, True),
    }
    set_products(guard_bits=0)
    for name, given in arguments.items():
        expected = getattr(torch.ops.ise_fast, name)(*given)
        for found, right in zip(getattr(simt, name)(*given), expected, strict=True):
            torch.testing.assert_close(found, right, rtol=0, atol=0 if name in EXACT else 1e-6, msg=name)


@pytest.mark.parametrize(("guard_bits", "error"), [(0, 16e-6), (2, 4e-6)])  # of a V100, of an H100
def test_losses_are_accurate_on_truncating_tensor_cores(
    simt: Any, unit_rows: Rows, set_products: Products, guard_bits: int, error: float
) -> None:
    features, labels, centroids = crowded_head(unit_rows, 7, 9, 65)
    set_products(guard_bits=guard_bits)
    arguments = (features, labels, centroids, 0.25, 2, 0.05, 0.6, 0.1, None, True)
    for ours, right in zip(simt.ise_loss(*arguments), torch.ops.ise_fast.ise_loss(*arguments), strict=True):
        torch.testing.assert_close(ours, right, rtol=0, atol=error * (float(right.abs().max()) + 0.1))
    group = (features, 2 * centroids, torch.full((9,), 2), labels, 0.05, 1e-6, True)
    soft = (features, centroids, labels[:, None], torch.ones(7, 1), 0.05, None, 0, None, None, True)
    for name, given in (("group_nce_loss", group), ("soft_nce_loss", soft)):
        expected = getattr(torch.ops.ise_fast, name)(*given)
        for ours, right in zip(getattr(simt, name)(*given), expected, strict=True):
            torch.testing.assert_close(ours, right, rtol=0, atol=error * (float(right.abs().max()) + 0.1), msg=name)


@pytest.mark.parametrize(("clusters", "d"), [(9, 2048), (2100, 16)], ids=["similarities", "gradient"])
def test_losses_are_accurate_however_deep_the_products_are(
    simt: Any, set_products: Products, clusters: int, d: int
) -> None:
    """Sums of terms of one sign, which lose the most to truncation: 1.3e-5 of a sum of 2,048 terms on an H100."""
    draw = torch.Generator().manual_seed(0)
    features, centroids = (torch.rand(n, d, generator=draw) / (d / 3) ** 0.5 for n in (7, clusters))
    centroids[1::2] -= centroids.mean()  # these sums lose little
    labels, t = torch.arange(7), 0.2
    set_products(guard_bits=2)
    loss, gradient = simt.cluster_nce_loss(features, labels, centroids, t, True)
    leaf = features.double().requires_grad_()
    logits = torch.nn.functional.normalize(leaf, dim=1) @ centroids.double().T / t
    truth = torch.nn.functional.cross_entropy(logits, labels)
    truth.backward()
    assert abs(loss - truth) < 6e-6
    assert leaf.grad is not None
    assert (gradient - leaf.grad).abs().max() < 2e-6


def test_losses_and_gram_are_accurate_under_tensor_float_32(simt: Any, unit_rows: Rows, set_products: Products) -> None:
    features, labels, centroids = crowded_head(unit_rows, 7, 9, 65)
    set_products(tensor_float_32=True)
    gram = torch.empty(9, 9)
    simt.refresh_gram_(gram, centroids, None)
    truth = centroids.double()
    assert (gram - truth @ truth.T).abs().max() < 3e-7
    for known in (None, gram):
        arguments = (features, labels, centroids, 0.25, 2, 0.05, 0.6, 0.1, known, True)
        for ours, right in zip(simt.ise_loss(*arguments), torch.ops.ise_fast.ise_loss(*arguments), strict=True):
            torch.testing.assert_close(ours, right, rtol=0, atol=4e-6 * (float(right.abs().max()) + 0.1))
    nce = (features, labels, centroids, 0.05, True)
    for ours, right in zip(simt.cluster_nce_loss(*nce), torch.ops.ise_fast.cluster_nce_loss(*nce), strict=True):
        torch.testing.assert_close(ours, right, rtol=0, atol=4e-6)


@pytest.mark.parametrize("shapes", [((5, 3), (3, 4)), ((1, 7), (7, 1)), ((4, 1), (1, 4)), ((3, 0), (0, 2))])
def test_products_of_slices_and_transposes(simt: Any, shapes: tuple[tuple[int, int], tuple[int, int]]) -> None:
    (m, d), (_, n) = shapes
    blocks = torch.ops.ise_fast_blocks
    big = torch.randn(2, 9, 9, generator=torch.Generator().manual_seed(0))
    for a in (big[0, :m, :d], big[0, :d, :m].T, big[0, :m, :d].contiguous()):
        for b in (big[1, :d, :n], big[1, :n, :d].T, big[1, :d, :n].contiguous()):
            out = torch.full((m + 1, n + 2), 7.0)
            blocks.product_into(out[:m, :n], a, b)
            torch.testing.assert_close(out[:m, :n], a @ b, rtol=1e-6, atol=1e-6)
            assert out[m].eq(7).all()
            assert out[:, n:].eq(7).all() or d == 0


def test_a_failed_product_says_what_the_library_says(simt: Any, unit_rows: Rows, set_products: Products) -> None:
    x = unit_rows(20, 8)
    set_products(failure=13)
    with pytest.raises(RuntimeError, match=r"^cublasGemmEx: the function failed to launch on the GPU \(\[20, 8\] x"):
        simt.knn(x, 3)


@pytest.mark.parametrize("guard_bits", [0, 1, 2])
def test_margin_is_twice_the_error_of_truncating_tensor_cores(
    simt: Any, set_products: Products, guard_bits: int
) -> None:
    """Nobody documents how tensor cores truncate: what the worst known way can do is to be half of the margin."""
    d = 64
    rows = [torch.full((d,), 2.0**-e) for e in (8, 10, 11, 12)]
    for row in rows:
        row[0] = 1.0
    x = torch.stack([*rows, *(-row for row in rows)])
    set_products(guard_bits=guard_bits)
    error, margin = torch.ops.ise_fast_blocks.filter_errors(x)
    assert 0 < (error / margin).max() < 0.5


def test_neighbours_under_truncating_tensor_cores(simt: Any, unit_rows: Rows, set_products: Products) -> None:
    x = unit_rows(1, 33) + 1e-3 * unit_rows(45, 33, 1)
    expected = torch.ops.ise_fast.knn(x, 4)[:2]
    set_products(guard_bits=0)
    for found, right in zip(simt.knn(x, 4)[:2], expected, strict=True):
        assert found.equal(right)


def test_no_product_goes_through_pytorch() -> None:
    """Its products refuse float16 under allow_fp16_accumulation and want an environment variable under deterministic
    algorithms; tests/ops/test_cuda.py sets both, but only where there is a GPU."""
    folder = Path(__file__).parents[2] / "csrc" / "cuda"
    sources = {path.name: re.sub(r"//.*", "", path.read_text()) for path in folder.iterdir()}
    assert "cublasGemmEx(" in sources["gemm.h"]
    products = re.compile(r"aten::|stable::(mm|bmm|addmm|matmul)\b")
    assert [name for name, text in sources.items() if products.search(text)] == []
