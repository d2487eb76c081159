"""Rows of one set among each other by half of the products, in blocks small enough that there are several."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from row_kinds import KINDS, rows
from torch import Tensor

K = 2
METRICS = ("sqeuclidean", "cosine", "euclidean")


def assert_same(simt: Any, x: Tensor, metric: str, block: int, k: int = K, width: int = -1) -> int:
    """Bits as the CPU's; returns how many rows needed another search."""
    expected = torch.ops.ise_fast.knn(x, k, None, metric, 0)
    *found, again = simt.knn(x, k, None, metric, block, width)
    for mine, theirs in zip(found, expected[:2], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0, msg=lambda text: f"{len(x)} in {block}: {text}")
    return int(again)


SIZES = ((65, 9, 64), (70, 5, 29), (64, 16, 16), (41, 3, 7))  # n, d, block


@pytest.mark.parametrize("kind", ["isotropic", "integers", "equal", "far", "mixed scales", "huge"])
def test_rows_in_blocks_of_every_kind(simt: Any, kind: str) -> None:
    """A last block of one row, one of fewer rows than others, whole ones; fewer rows than there are candidates."""
    at = KINDS.index(kind)
    for t in (at, at + 1):
        n, d, block = SIZES[t % 4]
        assert_same(simt, rows(kind, n, d), METRICS[t % 3], block)


@pytest.mark.parametrize(("n", "block"), [(300, 16), (130, 65), (129, 43)])
def test_no_row_is_in_doubt_in_random_order(simt: Any, n: int, block: int) -> None:
    """19 blocks, whose lists are cut five times, and two and three: what is cut or never enters is no candidate."""
    x = torch.randn(n, 6, generator=torch.Generator().manual_seed(n))
    assert assert_same(simt, x, METRICS[n % 3], block) == 0


def test_bounds_of_prefixes_in_blocks(simt: Any) -> None:
    """More rows than bounds keep; those of three axes of three leave no doubt."""
    assert K + 162 < 175
    g = torch.Generator().manual_seed(1)
    x = torch.randn(175, 3, generator=g) @ torch.randn(3, 12, generator=g) + 1e-3 * torch.randn(175, 12, generator=g)
    assert assert_same(simt, x, "euclidean", 60, width=5) == 0


def test_the_first_limits_let_in_as_many_as_there_are_candidates(simt: Any) -> None:
    """Two blocks, far from each other, of rows that float16 cannot tell apart: none is certain, nobody comes later."""
    x = 1 + 1e-5 * torch.randn(80, 5, generator=torch.Generator().manual_seed(3))
    x[40:, 0] += 20
    assert assert_same(simt, x, "sqeuclidean", 40) == 80
