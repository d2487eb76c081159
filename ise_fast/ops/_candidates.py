"""The nearest among candidates that somebody else has found, with an honest word on the rows that are none."""

from __future__ import annotations

import torch
from torch import Tensor

from ise_fast._checks import check_columns, check_finite, check_tensor
from ise_fast.ops._csr import offsets_of
from ise_fast.ops.shards import pattern_products
from ise_fast.types import CertifiedKNN


def nearest_candidates(
    x: Tensor, k: int, y: Tensor, metric: str, candidates: Tensor, beyond: Tensor | None
) -> CertifiedKNN:
    """See `ops.knn`; x, y, k and metric are checked but for what they hold."""
    check_columns("y", y, "x", x)
    check_finite("x", x)
    check_finite("y", y)
    given = check_tensor("candidates", candidates, 2, (torch.int32, torch.int64)).to(x.device)
    if len(given) != len(y):
        raise ValueError(f"candidates: expected a row for each of {len(y)} queries, got shape {tuple(given.shape)}")
    if given.numel() and not -1 <= int(given.min()) <= int(given.max()) < len(x):
        raise ValueError(f"candidates: expected -1 to {len(x) - 1}, got {int(given.min())} to {int(given.max())}")

    # Ascending, each once, so that equal distances stay in the order of the index.
    rows = given.long().sort(dim=1).values
    rows[:, 1:][rows[:, 1:] == rows[:, :-1]] = -1
    there = rows >= 0
    distances = torch.full(rows.shape, torch.inf, dtype=torch.float64, device=x.device)
    distances[there] = _compared(x, y, metric, rows, there)
    if rows.shape[1] < k:
        distances = torch.nn.functional.pad(distances, (0, k - rows.shape[1]), value=torch.inf)
        rows = torch.nn.functional.pad(rows, (0, k - rows.shape[1]), value=-1)
    nearest, order = distances.sort(dim=1, stable=True)
    nearest, found = nearest[:, :k], rows.gather(1, order[:, :k])
    found[nearest == torch.inf] = -1
    returned = nearest.sqrt() if metric == "euclidean" else nearest

    certified = there.sum(1) == len(x)
    if beyond is not None:
        bound = check_tensor("beyond", beyond, 1, (torch.float32, torch.float64)).to(x.device).double()
        if len(bound) != len(y):
            raise ValueError(f"beyond: expected a number for each of {len(y)} queries, got {len(bound)}")
        certified = certified | (returned[:, -1] < bound)  # strictly: at equal distance the index would decide
    within = returned.clamp(max=torch.finfo(torch.float32).max)  # as knn gives what is beyond
    return CertifiedKNN(torch.where(found < 0, torch.inf, within).float(), found, certified)


def _compared(x: Tensor, y: Tensor, metric: str, rows: Tensor, there: Tensor) -> Tensor:
    """The float64 distances that `ops.knn` compares, of the candidates that are there."""
    counts = there.sum(1)
    indptr = offsets_of(counts)
    column = rows[there].to(torch.int32)
    if metric != "cosine":
        return pattern_products(y, x, indptr, column, "sqeuclidean")
    query = torch.arange(len(y), device=y.device).repeat_interleave(counts)
    length = (_squared(y)[query] * _squared(x)[column.long()]).sqrt()
    cosine = torch.where(length > 0, pattern_products(y, x, indptr, column, "dot") / length, 0.0)
    return (1 - cosine).clamp(0, 2)


def _squared(x: Tensor) -> Tensor:
    each = torch.arange(len(x) + 1, device=x.device)
    return pattern_products(x, x, each, each[:-1].to(torch.int32), "dot")
