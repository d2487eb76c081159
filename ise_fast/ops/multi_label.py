"""Multi-labels by cycle consistency and their loss (MMCL: Wang & Zhang, CVPR 2020)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

import ise_fast._library  # noqa: F401 - registers torch.ops.ise_fast
from ise_fast._checks import check_dense, check_int, check_number
from ise_fast.ops._fake import register_fake
from ise_fast.ops._inputs import differentiable, in_working_precision
from ise_fast.ops._losses import fake_loss, register_loss, wants_gradient
from ise_fast.types import CSRGraph


def cycle_positives(table: Tensor, rows: Tensor, threshold: float = 0.6, least: int = 10) -> CSRGraph:
    """The rows of the memory that are reciprocal neighbours of each given row.

    Lists are ordered by (inner product rounded to float32, index), the largest first. With a = how many rows are more
    similar to i than the threshold, k = max(a, least), c_0, c_1, ... the list of i, and q = the largest j such that
    c_0 ... c_j all have c_0 at place k or better in their own lists (places from 0), the positives are
    c_0 ... c_{n-1}, n = min(max(1, q) + 1, a), and i itself.

    No list is sorted and no B x N matrix kept: a place is a count of the rows that are more similar, taken from tiles
    of a matrix product and settled in float64 where that is not certain, and candidates are asked one after the other
    until the first fails. CPU and CUDA give the same bits.

    Args:
        table: [N, d] float32 (float16 and bfloat16 are converted; float64 on a CPU), unit rows or zeros.
        rows: [B] int64, rows of the table.
        threshold: t.
        least: candidates at least, >= 1.

    Returns:
        CSRGraph of [B, N], columns int32 ascending, values the similarities in float32.

    Raises:
        TypeError, ValueError: naming the argument; NaN or infinity in the table, a row out of range.

    Example:
        >>> table = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]))
        >>> cycle_positives(table, torch.tensor([0, 2])).indices
        tensor([0, 1, 2], dtype=torch.int32)
    """
    v = in_working_precision("table", table).detach()
    threshold = check_number("threshold", threshold, -math.inf)
    least = check_int("least", least, 1)
    check_dense("rows", rows)
    indptr, indices, values = torch.ops.ise_fast.cycle_positives(v, rows, threshold, least)
    return CSRGraph(indptr, indices, values, (rows.shape[0], v.shape[0]))


def multi_label_loss(
    features: Tensor, table: Tensor, positives: CSRGraph, delta: float = 5.0, hard_share: float = 0.01
) -> Tensor:
    """Mean over the batch of delta mean over positives of (1 - z)^2 + mean over hard negatives of (1 + z)^2.

    z = f . V_r. The hard negatives are the int(hard_share * negatives) rows most similar to f among those that are no
    positives, by (inner product rounded to float32, index). Nothing is normalised here, and no B x N matrix kept: the
    hardest are picked from tiles of the product. The gradient is computed in the forward pass where `features` asks
    for one.

    Args:
        features: [B, d] float32, unit rows, B >= 1 (float16 and bfloat16 are converted; float64 on a CPU).
        table: [N, d]; a constant.
        positives: CSRGraph of [B, N], at least one column a row, int32 ascending; its values are not read.
        delta: weight of the positives, >= 0.
        hard_share: r in (0, 1]; int(r * negatives) must be 1 at least in every row (N > 100 for the published 0.01).

    Returns:
        A float32 scalar, differentiable in `features`; second and forward-mode derivatives are refused.

    Raises:
        TypeError, ValueError: naming the argument: shape, dtype, device, a number out of range, or (CPU) a row without
            positives or hard negatives, NaN or infinity. On CUDA, which would have to wait to see them, the loss is
            then NaN.

    Source: Wang & Zhang, Unsupervised Person Re-identification via Multi-label Classification, CVPR 2020.

    Example:
        >>> table = torch.nn.functional.normalize(torch.randn(200, 8), dim=1)
        >>> positives = cycle_positives(table, torch.tensor([3, 7]))
        >>> multi_label_loss(table[[3, 7]].requires_grad_(), table, positives).backward()
    """
    f = in_working_precision("features", differentiable("multi_label_loss", features))
    v = in_working_precision("table", table)
    delta = check_number("delta", delta, 0)
    share = check_number("hard_share", hard_share, 0, 1, above=True)
    if f.dim() == v.dim() == 2 and positives.shape != (f.shape[0], v.shape[0]):
        raise ValueError(f"positives: expected a graph of shape {(f.shape[0], v.shape[0])}, got {positives.shape}")
    indptr, indices = positives.indptr, positives.indices
    loss: Tensor = torch.ops.ise_fast.multi_label_loss(f, v.detach(), indptr, indices, delta, share, wants_gradient(f))[
        0
    ]
    return loss


@register_fake("cycle_positives")
def _(table: Tensor, rows: Tensor, threshold: float, least: int) -> tuple[Tensor, Tensor, Tensor]:
    count = torch.library.get_ctx().new_dynamic_size()
    return (
        rows.new_empty(rows.shape[0] + 1),
        rows.new_empty(count, dtype=torch.int32),
        rows.new_empty(count, dtype=torch.float32),
    )


@register_fake("multi_label_loss")
def _(
    features: Tensor,
    table: Tensor,
    indptr: Tensor,
    indices: Tensor,
    delta: float,
    hard_share: float,
    needs_gradient: bool,
) -> tuple[Tensor, Tensor]:
    return fake_loss(features, needs_gradient)


register_loss("multi_label_loss")
