"""Features that have collapsed: a few rows are among the nearest of nearly all others, so every pair is a neighbour."""

from __future__ import annotations

import torch
from torch import Tensor

from ise_fast._checks import check_int
from ise_fast.types import TooManyPairs


def check_max_pairs(max_pairs: int | None) -> int | None:
    """A bound on the pairs of a Jaccard graph.

    Raises:
        TypeError, ValueError: if it is neither None nor an integer of at least 1.
    """
    return None if max_pairs is None else check_int("max_pairs", max_pairs, 1)


def most_pairs(max_pairs: int | None, rows: int) -> int:
    """The bound, or what it is by default: 100 million (about 1 GB), or 500 a row; real data have about 20 a row."""
    return max(100_000_000, 500 * rows) if max_pairs is None else max_pairs


def nearest_of_most(nn: Tensor, k2: int) -> tuple[list[int], int]:
    """The three rows that are nearest to most others, and how many rows have one of them among their nearest.

    Args:
        nn: [N, k1] int64 neighbours, nearest first.
        k2: how many of them count: a shared neighbour brings two rows together through the query expansion.
    """
    nearest = nn[:, : max(k2, 2)]
    times = torch.bincount(nearest.flatten(), minlength=nn.shape[0])
    rows = torch.sort(times, descending=True, stable=True).indices[:3]
    return rows.tolist(), int(torch.isin(nearest, rows).any(dim=1).sum())


def collapse_text(nn: Tensor, k2: int, share: float) -> str:
    """What to tell the user where some rows are among the nearest of more than `share` of all rows; else nothing."""
    rows, reached = nearest_of_most(nn, k2)
    if reached <= share * nn.shape[0]:
        return ""
    names = ", ".join(str(row) for row in rows)
    return f"features have collapsed: rows {names} are among the nearest of {reached} of {nn.shape[0]} rows"


def too_many_pairs(nn: Tensor, k2: int, eps: float, max_pairs: int) -> TooManyPairs:
    """The error of a graph with more than max_pairs pairs within eps."""
    if text := collapse_text(nn, k2, share=0.1):
        return TooManyPairs(f"{text}; more than max_pairs = {max_pairs} pairs are within eps = {eps:g}")
    return TooManyPairs(
        f"max_pairs: expected at most {max_pairs} pairs within eps = {eps:g}, got more; lower eps or raise max_pairs"
    )
