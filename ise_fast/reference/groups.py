"""The hybrid memory's loss (SpCL: Ge et al., NeurIPS 2020, section 3.2): features against the means of groups."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ise_fast._checks import (
    check_columns,
    check_device,
    check_features,
    check_label_range,
    check_label_vector,
    check_number,
    check_tensor,
)
from ise_fast.types import Groups


def group_members(labels: Tensor, groups: int) -> Groups:
    """The rows of each group, ascending: what `refresh_groups_` adds up.

    Arguments, result and errors are those of `ise_fast.ops.group_members`.
    """
    y = check_tensor("labels", labels, 1, (torch.int64,))
    if len(y) and not -1 <= int(y.min()) <= int(y.max()) < groups:
        raise ValueError(f"labels: expected -1 to {groups - 1}, got {int(y.min())} to {int(y.max())}")
    rows = [(y == g).nonzero()[:, 0] for g in range(groups)]
    indptr = torch.tensor([0, *(len(r) for r in rows)], device=y.device).cumsum(0)
    return Groups(indptr, torch.cat([y.new_empty(0), *rows]))


@torch.no_grad()
def refresh_groups_(sums: Tensor, table: Tensor, members: Groups, touched: Tensor) -> None:
    """Sums of the touched groups made anew from their rows, in place: float64, in row order, rounded once.

    Arguments, result and errors are those of `ise_fast.ops.refresh_groups_`.
    """
    check_tensor("sums", sums, 2, (torch.float32, torch.float64))
    rows = check_features("table", table)
    if sums.shape[1] != rows.shape[1]:
        raise ValueError(f"sums: expected {rows.shape[1]} columns as in table, got shape {tuple(sums.shape)}")
    check_device("sums", sums, "table", rows)
    check_tensor("touched", touched, 1, (torch.int64,))
    check_label_range("touched", touched, sums.shape[0])
    if members.indptr.numel() != sums.shape[0] + 1:
        raise ValueError(f"members: expected {sums.shape[0]} groups as in sums, got {members.indptr.numel() - 1}")
    check_label_range("members", members.rows, rows.shape[0])
    for g in touched.unique().tolist():
        total = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.device)
        for r in members.rows[members.indptr[g] : members.indptr[g + 1]].tolist():
            total += rows[r].double()
        sums[g] = total.to(sums.dtype)


def group_nce_loss(
    features: Tensor, sums: Tensor, counts: Tensor, labels: Tensor, temperature: float = 0.05, eps: float = 1e-6
) -> Tensor:
    """Mean over the batch of -log(p_y + eps), p = e^z / (sum of e^z + eps), over the groups that own rows.

    z, arguments, result and errors are those of `ise_fast.ops.group_nce_loss`.
    """
    f, s = check_features("features", features), check_features("sums", sums).detach()
    check_columns("sums", s, "features", f)
    if f.shape[0] == 0:
        raise ValueError(f"features: expected at least one row, got shape {tuple(f.shape)}")
    y = check_label_vector("labels", labels, f.shape[0], "features")
    n = check_label_vector("counts", counts, s.shape[0], "sums")
    check_device("labels", y, "features", f)
    check_label_range("labels", y, s.shape[0])
    if (n < 0).any():
        raise ValueError(f"counts: expected at least 0, got {int(n.min())}")
    if (n[y] == 0).any():
        raise ValueError(f"labels: expected groups that own rows, got {int(y[n[y] == 0][0])} with none")
    tau, eps = check_number("temperature", temperature, 0, above=True), check_number("eps", eps, 0)
    z = f @ (s / n.clamp_min(1)[:, None]).T / tau
    z = z.masked_fill(n == 0, -math.inf)
    # e^z overflows below tau = 0.0113: everything relative to the largest logit, the constant too.
    top = z.detach().amax(dim=1, keepdim=True)
    e = (z - top).exp()
    p = e / (e.sum(dim=1, keepdim=True) + eps * (-top).exp())
    return -(p.gather(1, y[:, None]) + eps).log().mean()
