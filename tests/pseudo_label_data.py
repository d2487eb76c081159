"""Inputs and comparisons that the tests of the pseudo-label operators share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from ise_fast.types import CSRGraph

T = TypeVar("T")


def clustered(unit_rows: Callable[..., Tensor], n: int, d: int, seed: int = 0) -> Tensor:
    """n unit rows around n / 8 centres."""
    centres = unit_rows(max(n // 8, 1), d, seed).repeat(16, 1)[:n]
    return torch.nn.functional.normalize(centres + 0.6 * unit_rows(n, d, seed + 1), dim=1)


def graph_of(n: int, entries: dict[tuple[int, int], float]) -> CSRGraph:
    """The sparse graph of n points that stores these (row, column): distance."""
    rows, columns = zip(*entries, strict=True) if entries else ((), ())
    return CSRGraph.from_scipy(csr_array((np.float32(list(entries.values())), (rows, columns)), shape=(n, n)))


def same_bits(a: CSRGraph, b: CSRGraph) -> bool:
    """Equal offsets, columns and values."""
    return a.indptr.equal(b.indptr) and a.indices.equal(b.indices) and a.values.equal(b.values)


def with_threads(run: Callable[[], T]) -> tuple[T, T, T]:
    """What `run` returns on 1, 2 and 4 threads."""
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            results.append(run())
    finally:
        torch.set_num_threads(before)
    one, two, four = results
    return one, two, four
