"""Searches by prefixes along principal axes on a GPU's code: forced and chosen, against the CPU operator."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from row_kinds import KINDS, rows
from torch import Tensor

N, D, K = 179, 17, 3
WIDTHS = (1, 8, D - 1, D)
NONE, CHOSEN = -1, -2
METRICS = ("sqeuclidean", "cosine", "euclidean")


def assert_same(simt: Any, x: Tensor, k: int, y: Tensor | None, metric: str, width: int, block: int = 0) -> Tensor:
    """Bits as the CPU's; returns how many queries needed another search."""
    expected = torch.ops.ise_fast.knn(x, k, y, metric, 0, NONE)
    *found, again = simt.knn(x, k, y, metric, block, width)
    for mine, theirs in zip(found, expected[:2], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0, msg=lambda text: f"width {width}: {text}")
    return again


@pytest.mark.parametrize("kind", KINDS)
def test_neighbours_of_every_width(simt: Any, kind: str) -> None:
    """More rows than are kept as candidates, so that what is left out must be certified."""
    x = rows(kind, N, D)
    assert K + 162 < N
    for width, metric in zip(WIDTHS, (*METRICS, METRICS[KINDS.index(kind) % 3]), strict=True):
        assert_same(simt, x, K, torch.cat([x[5:6], rows("isotropic", 2, D)]), metric, width)


def test_rows_among_each_other_in_blocks(simt: Any) -> None:
    assert_same(simt, rows("falling spectrum", 21, 9), 4, None, "euclidean", 5, 8)
    assert_same(simt, rows("copies", 40, 3), 40, None, "cosine", 2)
    assert_same(simt, rows("isotropic", 1, 3), 1, None, "cosine", 2)


@pytest.mark.parametrize("metric", METRICS)
def test_rounding_decides_the_order_without_the_margin(simt: Any, metric: str) -> None:
    """Rows far out, that float16 prefixes cannot tell apart: every candidate may be the nearest."""
    g = torch.Generator().manual_seed(0)
    x = 30 + 1e-2 * torch.randn(190, 12, generator=g)
    for width in (1, 4, 12):
        assert_same(simt, x, 2, x[::50] + 1e-3, metric, width)


def test_prefixes_leave_few_in_doubt_where_few_axes_hold_all(simt: Any) -> None:
    """Four of 40 axes: the bounds tell all but the candidates from the answer. Noise: they do not, and all go again."""
    g = torch.Generator().manual_seed(1)
    x = torch.randn(220, 4, generator=g) @ torch.randn(4, 40, generator=g) + 1e-3 * torch.randn(220, 40, generator=g)
    assert assert_same(simt, x, 2, x[:4] + 0.1, "euclidean", 8) == 0
    noise = torch.randn(220, 40, generator=g)
    assert assert_same(simt, noise, 2, torch.randn(4, 40, generator=g), "euclidean", 1) == 4


def test_the_choice_is_made_and_keeps_the_bits(simt: Any) -> None:
    """For few rows no prefix pays, but the pilot flies."""
    for kind in ("falling spectrum", "isotropic"):
        x = rows(kind, N, D)
        assert_same(simt, x, K, x[:3] + 1, "sqeuclidean", CHOSEN)
