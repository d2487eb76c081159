"""Contrast with several weighted targets: softened similarity, mixed images, label smoothing, camera proxies."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ise_fast._checks import check_columns, check_device, check_features, check_int, check_number, check_tensor


def soft_nce_loss(
    features: Tensor,
    table: Tensor,
    columns: Tensor,
    weights: Tensor,
    temperature: float = 0.05,
    *,
    smooth: float | Tensor = 0.0,
    negatives: int = 0,
    ranges: Tensor | None = None,
    excluded: Tensor | None = None,
) -> Tensor:
    """Mean over the batch of -sum over r of t_r log softmax(f . V / temperature)_r.

    t, D, arguments, result and errors are those of `ise_fast.ops.soft_nce_loss`.
    """
    f, v = check_features("features", features), check_features("table", table).detach()
    check_columns("table", v, "features", f)
    (b, _), rows = f.shape, v.shape[0]
    if b == 0:
        raise ValueError(f"features: expected at least one row, got shape {tuple(f.shape)}")
    tau = check_number("temperature", temperature, 0, above=True)
    n = check_int("negatives", negatives, 0)
    y = _indices("columns", columns, f, -1, rows)
    w = check_features("weights", weights, (*(torch.float32, torch.float16, torch.bfloat16), torch.float64)).to(f.dtype)
    if w.shape != y.shape:
        raise ValueError(f"weights: expected the shape of columns {tuple(y.shape)}, got shape {tuple(w.shape)}")
    if (w < 0).any():
        raise ValueError(f"weights: expected at least 0, got {float(w.min())}")
    a = _smoothing(smooth, f)

    row = torch.arange(rows, device=f.device)
    inside = torch.ones(b, rows, dtype=torch.bool, device=f.device)
    if ranges is not None:
        bounds = _indices("ranges", ranges, f, 0, rows + 1)
        if bounds.shape[1] != 2 or (bounds[:, 0] > bounds[:, 1]).any():
            raise ValueError("ranges: expected [B, 2], the first row and the one past the last")
        inside = (row >= bounds[:, :1]) & (row < bounds[:, 1:])
    if excluded is not None:
        inside &= ~_marked(_indices("excluded", excluded, f, -1, rows), rows)
    targets = _marked(y, rows)
    if (targets & ~inside).any():
        raise ValueError("columns: expected rows of the sample's range that are not excluded")
    dense = torch.zeros(b, rows, dtype=f.dtype, device=f.device)
    dense.scatter_add_(1, y.clamp_min(0), torch.where(y >= 0, w, 0)) if rows else dense

    if n:
        exact = (f.detach().double() @ v.double().T).to(f.dtype).masked_fill(targets | ~inside, -math.inf)
        nearest = exact.sort(dim=1, descending=True, stable=True).indices[:, :n]
        chosen = torch.zeros_like(inside).scatter_(1, nearest, True)
        inside = targets | (chosen & inside)
    logits = (f @ v.T / tau).masked_fill(~inside, -math.inf)
    log_p = (logits - logits.logsumexp(dim=1, keepdim=True)).masked_fill(~inside, 0)
    total = dense.sum(dim=1)
    spread = a * total / inside.sum(dim=1).clamp_min(1)
    return -((1 - a)[:, None] * dense * log_p + spread[:, None] * log_p).sum(dim=1).mean()


def _smoothing(smooth: float | Tensor, f: Tensor) -> Tensor:
    if not isinstance(smooth, Tensor):
        return f.new_full((f.shape[0],), check_number("smooth", smooth, 0, 1))
    check_tensor("smooth", smooth, 1, (torch.float32, torch.float64))
    if smooth.shape[0] != f.shape[0]:
        raise ValueError(f"smooth: expected one number for each of {f.shape[0]} rows, got {smooth.shape[0]}")
    if not ((smooth >= 0) & (smooth <= 1)).all():
        raise ValueError(f"smooth: expected numbers in [0, 1], got {smooth.tolist()[:8]}")
    return smooth.to(f)


def _indices(name: str, x: Tensor, f: Tensor, low: int, high: int) -> Tensor:
    y = check_tensor(name, x, 2, (torch.int64,))
    check_device(name, y, "features", f)
    if y.shape[0] != f.shape[0]:
        raise ValueError(f"{name}: expected {f.shape[0]} rows as in features, got shape {tuple(y.shape)}")
    bad = (y < low) | (y >= high)
    if bad.any():
        raise ValueError(f"{name}: expected {low} to {high - 1}, got {int(y[bad][0])}")
    return y


def _marked(columns: Tensor, rows: int) -> Tensor:
    """[B, rows] whether a row is named."""
    marks = torch.zeros(columns.shape[0], rows + 1, dtype=torch.bool, device=columns.device)
    marks.scatter_(1, torch.where(columns < 0, rows, columns), True)
    return marks[:, :rows]
