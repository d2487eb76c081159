"""Searches by prefixes along principal axes on a GPU's code: forced and chosen, against the CPU operators."""

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


def assert_same_graph(simt: Any, x: Tensor, eps: float, metric: str, width: int, block: int = 0) -> None:
    expected = torch.ops.ise_fast.radius_graph(x, eps, metric, 0, NONE)
    for mine, theirs in zip(simt.radius_graph(x, eps, metric, block, width), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0, msg=lambda text: f"width {width}: {text}")


def assert_same_pairs(simt: Any, x: Tensor, y: Tensor, eps: float, metric: str, width: int, block: int = 0) -> None:
    expected = torch.ops.ise_fast.radius_pairs(x, y, eps, metric, False, 0, NONE)
    for mine, theirs in zip(simt.radius_pairs(x, y, eps, metric, False, block, width), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0, msg=lambda text: f"width {width}: {text}")


def radius_of(x: Tensor, metric: str, pairs: int) -> float:
    """A distance that occurs, that of the median row's `pairs`-th neighbour: float32 distances are compared by it."""
    near = torch.ops.ise_fast.knn(x.float(), pairs, None, metric, 0, NONE)[0][:, -1]
    return min(float(near.median()), 1e38)


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


@pytest.mark.parametrize("kind", KINDS)
def test_graphs_of_every_width(simt: Any, kind: str) -> None:
    x, y = rows(kind, 44, D), torch.cat([rows(kind, 44, D)[5:6], rows("isotropic", 2, D)])
    for t, width in enumerate(WIDTHS):
        metric = METRICS[(KINDS.index(kind) + t) % 3]
        single = t % 2 == 0
        typed, queries = (x, y) if single else (x.double() * 1.1, y.double() * 1.1)
        eps = radius_of(typed, metric, 6)
        if t < 2:
            assert_same_pairs(simt, typed, queries, eps, metric, width)
        assert_same_graph(simt, typed, eps, metric, width)


def test_graphs_in_blocks(simt: Any) -> None:
    """Tiles that begin anywhere: what a row has in common with rows of earlier tiles is found there."""
    x = rows("falling spectrum", 70, 9)
    eps = radius_of(x, "sqeuclidean", 8)
    for block, width in ((7, 5), (32, NONE)):
        assert_same_graph(simt, x, eps, "sqeuclidean", width, block)
        assert_same_pairs(simt, x, x[:10].contiguous(), eps, "sqeuclidean", width, block)
    assert_same_graph(simt, rows("isotropic", 1, 3), 0.0, "cosine", 2)
    assert_same_graph(simt, rows("zeros", 40, 3), 0.5, "cosine", 2, 16)  # each is within the radius of itself alone


@pytest.mark.parametrize("metric", METRICS)
def test_rounding_decides_who_is_within_the_radius_without_the_margin(simt: Any, metric: str) -> None:
    x = 30 + 1e-2 * torch.randn(44, 12, generator=torch.Generator().manual_seed(0))
    eps = radius_of(x, metric, 12)
    for width in (NONE, 1, 4, 12):
        assert_same_graph(simt, x, eps, metric, width)
    assert_same_pairs(simt, x, x[::20] + 1e-3, eps, metric, 4)


def test_the_choice_for_a_graph_is_made_and_keeps_the_bits(simt: Any) -> None:
    for kind in ("falling spectrum", "isotropic"):
        x = rows(kind, 44, D)
        eps = radius_of(x, "sqeuclidean", 6)
        assert_same_graph(simt, x, eps, "sqeuclidean", CHOSEN)
    assert_same_pairs(simt, x, x[:3] + 1, eps, "sqeuclidean", CHOSEN)
