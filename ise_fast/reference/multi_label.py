"""Multi-labels by cycle consistency and their loss (MMCL: Wang & Zhang, CVPR 2020), with sorted lists."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ise_fast._checks import (
    check_columns,
    check_device,
    check_features,
    check_int,
    check_label_range,
    check_number,
    check_tensor,
)
from ise_fast.types import CSRGraph


def cycle_positives(table: Tensor, rows: Tensor, threshold: float = 0.6, least: int = 10) -> CSRGraph:
    """The rows of the memory that are reciprocal neighbours of each given row.

    Arguments, result and errors are those of `ise_fast.ops.cycle_positives`.
    """
    v = check_features("table", table)
    idx = check_tensor("rows", rows, 1, (torch.int64,))
    check_device("rows", idx, "table", v)
    check_label_range("rows", idx, v.shape[0])
    threshold = check_number("threshold", threshold, -math.inf)
    least = check_int("least", least, 1)

    def ordered(i: int) -> tuple[Tensor, Tensor]:
        similarity = (v.double() @ v[i].double()).float()
        return similarity, similarity.sort(descending=True, stable=True).indices

    columns, values = [], []
    for i in idx.tolist():
        similarity, candidates = ordered(i)
        a = int((similarity.double() > threshold).sum())
        k = max(a, least)
        q = -1
        for c in candidates[:a].tolist():
            if int((ordered(c)[1] == candidates[0]).nonzero()) > k:
                break
            q += 1
        taken = candidates[: min(max(1, q) + 1, a)].tolist()
        chosen = torch.tensor(sorted({i, *taken}), dtype=torch.int64, device=v.device)
        columns.append(chosen)
        values.append(similarity[chosen])
    indptr = torch.tensor([0, *(len(c) for c in columns)], device=v.device).cumsum(0)
    indices = torch.cat([idx.new_empty(0), *columns]).int()
    return CSRGraph(indptr, indices, torch.cat([v.new_empty(0).float(), *values]), (len(idx), v.shape[0]))


def multi_label_loss(
    features: Tensor, table: Tensor, positives: CSRGraph, delta: float = 5.0, hard_share: float = 0.01
) -> Tensor:
    """Mean over the batch of delta mean over positives of (1 - z)^2 + mean over hard negatives of (1 + z)^2.

    z, which negatives are hard, arguments, result and errors are those of `ise_fast.ops.multi_label_loss`.
    """
    f, v = check_features("features", features), check_features("table", table).detach()
    check_columns("table", v, "features", f)
    (b, _), n = f.shape, v.shape[0]
    if b == 0:
        raise ValueError(f"features: expected at least one row, got shape {tuple(f.shape)}")
    if positives.shape != (b, n):
        raise ValueError(f"positives: expected a graph of shape ({b}, {n}), got {positives.shape}")
    delta = check_number("delta", delta, 0)
    share = check_number("hard_share", hard_share, 0, 1, above=True)
    check_label_range("positives", positives.indices, n)
    total = f.new_zeros(())
    for i in range(b):
        own = positives.indices[int(positives.indptr[i]) : int(positives.indptr[i + 1])].long()
        if len(own) == 0:
            raise ValueError(f"positives: expected at least one column a row, got none in row {i}")
        hard = int(share * (n - len(own)))
        if hard == 0:
            raise ValueError(
                f"hard_share: expected at least one hard negative, got int({share:g} * {n - len(own)}) = 0 in row {i}"
            )
        exact = (v.double() @ f[i].detach().double()).to(f.dtype)
        exact[own] = -math.inf
        z = v @ f[i]
        worst = exact.sort(descending=True, stable=True).indices[:hard]
        total = total + delta * (1 - z[own]).square().mean() + (1 + z[worst]).square().mean()
    return total / b
