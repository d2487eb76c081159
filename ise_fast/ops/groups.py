"""The hybrid memory of SpCL (Ge et al., NeurIPS 2020): groups of rows of a table, their sums, and the loss on them."""

from __future__ import annotations

import torch
from torch import Tensor

import ise_fast._library  # noqa: F401 - registers torch.ops.ise_fast
from ise_fast._checks import check_dense, check_int, check_number, check_tensor
from ise_fast.ops._fake import register_fake
from ise_fast.ops._inputs import differentiable, in_working_precision
from ise_fast.ops._losses import fake_loss, register_loss, wants_gradient
from ise_fast.types import Groups


def group_members(labels: Tensor, groups: int) -> Groups:
    """The rows of each group, ascending: what `refresh_groups_` adds up.

    Args:
        labels: [N] int64, the group of each row, -1 for none.
        groups: K, how many there are; a group may be empty.

    Returns:
        Groups(indptr [K + 1] int64, rows [at most N] int64), on the device of the labels.

    Raises:
        TypeError, ValueError: naming the argument.

    Example:
        >>> group_members(torch.tensor([1, 0, 1]), 2).rows
        tensor([1, 0, 2])
    """
    y, groups = check_tensor("labels", labels, 1, (torch.int64,)), check_int("groups", groups, 0)
    if len(y) and not -1 <= int(y.min()) <= int(y.max()) < groups:
        raise ValueError(f"labels: expected -1 to {groups - 1}, got {int(y.min())} to {int(y.max())}")
    counts = torch.bincount(y + 1, minlength=groups + 1)
    rows = y.argsort(stable=True)[int(counts[0]) :]
    counts[0] = 0
    return Groups(counts.cumsum(0), rows)


@torch.no_grad()
def refresh_groups_(sums: Tensor, table: Tensor, members: Groups, touched: Tensor) -> None:
    """Sums of the touched groups made anew from their rows, in place: float64, in row order, rounded once.

    Adding and subtracting the rows that moved would drift; this does not, and CPU and CUDA give the same bits. The work
    is that of the touched groups alone.

    Args:
        sums: [K, d] float32 or float64, contiguous; changed in place.
        table: [N, d] float32 (float64 on a CPU).
        members: the rows of each group: `group_members(labels, K)`.
        touched: [M] int64, groups, repeats allowed. On CUDA, which would have to wait to see them, groups and rows out
            of range are left out.

    Raises:
        TypeError, ValueError: naming the argument; `sums` is then untouched.
    """
    rows = in_working_precision("table", table)
    check_dense("sums", sums)
    check_dense("touched", touched)
    for part, tensor in zip(members._fields, members, strict=True):
        check_dense(f"members.{part}", tensor)
    torch.ops.ise_fast.refresh_groups_(sums, rows, members.indptr, members.rows, touched)


def group_nce_loss(
    features: Tensor, sums: Tensor, counts: Tensor, labels: Tensor, temperature: float = 0.05, eps: float = 1e-6
) -> Tensor:
    """Mean over the batch of -log(p_y + eps), p = e^z / (sum of e^z + eps), over the groups that own rows.

        mu_c = sums_c / counts_c (not normalised),   z_c = f . mu_c / temperature

    The work is that of B x K products, not B x N; nothing of size B x K is kept: the softmax runs online over tiles of
    the groups. Nothing is normalised here: behind a network whose last layer makes unit rows its parameters get the
    same gradient. The gradient is computed in the forward pass where `features` asks for one.

    Args:
        features: [B, d] float32, unit rows, B >= 1 (float16 and bfloat16 are converted; float64 on a CPU).
        sums: [K, d], the sum of each group's rows (`refresh_groups_`); a constant.
        counts: [K] int64, how many rows each group owns; groups without rows take no part.
        labels: [B] int64, groups that own rows.
        temperature: tau > 0; small ones are safe, the largest logit is subtracted first.
        eps: both constants of the published loss, >= 0.

    Returns:
        A float32 scalar, differentiable in `features`; second and forward-mode derivatives are refused.

    Raises:
        TypeError, ValueError: naming the argument: shape, dtype, device, a number out of range, or (CPU) a label
            without rows, NaN or infinity. On CUDA, which would have to wait to see them, the loss is then NaN.

    Source: Ge et al., Self-paced Contrastive Learning with Hybrid Memory, NeurIPS 2020, section 3.2.

    Example:
        >>> f = torch.nn.functional.normalize(torch.randn(4, 8), dim=1).requires_grad_()
        >>> table, groups = torch.nn.functional.normalize(torch.randn(6, 8), dim=1), torch.tensor([0, 0, 1, 1, 2, 3])
        >>> sums = torch.zeros(4, 8)
        >>> refresh_groups_(sums, table, group_members(groups, 4), torch.arange(4))
        >>> group_nce_loss(f, sums, groups.bincount(), torch.tensor([0, 0, 2, 3])).backward()
    """
    f = in_working_precision("features", differentiable("group_nce_loss", features))
    s = in_working_precision("sums", sums)
    tau = check_number("temperature", temperature, 0, above=True)
    eps = check_number("eps", eps, 0)
    check_dense("counts", counts)
    check_dense("labels", labels)
    loss: Tensor = torch.ops.ise_fast.group_nce_loss(f, s.detach(), counts, labels, tau, eps, wants_gradient(f))[0]
    return loss


@register_fake("group_nce_loss")
def _(
    features: Tensor,
    sums: Tensor,
    counts: Tensor,
    labels: Tensor,
    temperature: float,
    eps: float,
    needs_gradient: bool,
) -> tuple[Tensor, Tensor]:
    return fake_loss(features, needs_gradient)


@register_fake("refresh_groups_")
def _(sums: Tensor, table: Tensor, indptr: Tensor, rows: Tensor, touched: Tensor) -> None:
    pass


register_loss("group_nce_loss")
