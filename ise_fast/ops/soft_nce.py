"""Contrast with several weighted targets: softened similarity, mixed images, label smoothing, camera proxies."""

from __future__ import annotations

import torch
from torch import Tensor

import ise_fast._library  # noqa: F401 - registers torch.ops.ise_fast
from ise_fast._checks import check_all_dense, check_dense, check_int, check_number
from ise_fast.ops._fake import register_fake
from ise_fast.ops._inputs import differentiable, in_working_precision
from ise_fast.ops._losses import fake_loss, register_loss, wants_gradient


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

        t_r = (1 - a) w_r + a W / |D|,   w_r = sum of the weights of column r,   W = sum of all w_r,   a = smooth

    The softmax runs over D, the rows of the table in the sample's range without its excluded ones. With `negatives` = n
    only its targets and the n other rows of D most similar to f, by (inner product rounded to float32, index), are
    left in D; all others if there are fewer. A sample without a target has loss 0.

    Nothing of size B x R is kept: the softmax runs online over tiles of the table. Nothing is normalised here, neither
    features nor weights: behind a network whose last layer makes unit rows its parameters get the same gradient. The
    gradient is computed in the forward pass where `features` asks for one.

        softened similarity   columns = [image, its k reliable images], weights = [l, (1 - l) / k, ...]
        mixup, CutMix         columns = [y_i, y_j], weights = [share, 1 - share]
        label smoothing       columns = [y], weights = [1], smooth = 0.1
        CAP within a camera   columns = [own proxy], weights = [B / rows of the camera], ranges = rows of the camera
        CAP across cameras    columns = the proxies of the cluster, padded by -1, negatives = 50
        PPLR                  columns = all classes, weights = refined targets; smooth = 1 - agreement, one a row

    Args:
        features: [B, d] float32, B >= 1 (float16 and bfloat16 are converted; float64 on a CPU).
        table: [R, d]; a constant.
        columns: [B, s] int64, the targets of each sample, -1 for none; a repeated column adds up.
        weights: [B, s] floating, >= 0; a constant. Their sum scales the sample's loss.
        temperature: tau > 0.
        smooth: share a of the target that is spread evenly over D, in [0, 1]: one number, or [B].
        negatives: n; 0 takes all rows.
        ranges: [B, 2] int64, first row and the one past the last, of each sample; None: the whole table.
        excluded: [B, e] int64, rows that take no part, -1 for none.

    Returns:
        A float32 scalar, differentiable in `features`; second and forward-mode derivatives are refused.

    Raises:
        TypeError, ValueError: naming the argument: shape, dtype, device, a number out of range, or (CPU) a target
            outside its range or excluded, NaN or infinity. On CUDA, which would have to wait to see them, the loss is
            then NaN; a row of the table outside all ranges has to be finite there, too, or spoils the gradient.

    Source: Lin et al., Softened Similarity Learning, CVPR 2020; Zhang et al., mixup, ICLR 2018; Yun et al., CutMix,
    ICCV 2019; Wang et al., Camera-aware Proxies, AAAI 2021; Cho et al., Part-based Pseudo Label Refinement, CVPR 2022.

    Example:
        >>> f = torch.nn.functional.normalize(torch.randn(2, 8), dim=1).requires_grad_()
        >>> table = torch.nn.functional.normalize(torch.randn(5, 8), dim=1)
        >>> soft_nce_loss(f, table, torch.tensor([[0, 3], [1, -1]]), torch.tensor([[0.7, 0.3], [1.0, 0.0]])).backward()
    """
    f = in_working_precision("features", differentiable("soft_nce_loss", features))
    v = in_working_precision("table", table)
    w = in_working_precision("weights", weights).to(f.dtype)
    tau = check_number("temperature", temperature, 0, above=True)
    check_dense("columns", columns)
    check_all_dense(ranges=ranges, excluded=excluded)
    spread: Tensor | None
    if isinstance(smooth, Tensor):
        spread = in_working_precision("smooth", smooth).detach().to(f.dtype)
    else:
        share = check_number("smooth", smooth, 0, 1)
        spread = f.new_full(f.shape[:1], share) if share else None
    if not torch.compiler.is_compiling():  # a traced number has no type to look at; the operator checks its range
        negatives = check_int("negatives", negatives, 0)
    loss: Tensor = torch.ops.ise_fast.soft_nce_loss(
        f, v.detach(), columns, w.detach(), tau, spread, negatives, ranges, excluded, wants_gradient(f)
    )[0]
    return loss


@register_fake("soft_nce_loss")
def _(
    features: Tensor,
    table: Tensor,
    columns: Tensor,
    weights: Tensor,
    temperature: float,
    smooth: Tensor | None,
    negatives: int,
    ranges: Tensor | None,
    excluded: Tensor | None,
    needs_gradient: bool,
) -> tuple[Tensor, Tensor]:
    return fake_loss(features, needs_gradient)


register_loss("soft_nce_loss")
