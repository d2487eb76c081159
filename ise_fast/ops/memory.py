"""The cluster memory's update, in place."""

from __future__ import annotations

import torch
from torch import Tensor

import ise_fast._library  # noqa: F401 - registers torch.ops.ise_fast
from ise_fast._checks import check_choice, check_dense, check_number
from ise_fast.ops._fake import register_fake
from ise_fast.ops._inputs import in_working_precision


@torch.no_grad()
def update_memory_(centroids: Tensor, rows: Tensor, labels: Tensor, momentum: float, mode: str = "hard") -> None:
    """Move centroids towards the rows of a batch, in place: c <- momentum c + (1 - momentum) row, made unit again.

    `hard` takes one row a label: the one least similar to its centroid as it was before the call (the first on ties;
    products in float64, rounded to float32). `momentum` takes every row of the label, one after the other in the order
    of the batch. The published order is all real rows first, then all supports.

    Args:
        centroids: [K, d] float32 (float64 on a CPU), unit rows; changed in place.
        rows: [M, d] floating.
        labels: [M] int64, 0 to K - 1. On CUDA, which would have to wait to see them, rows with another label are
            left out.
        momentum: in [0, 1]: 1 keeps the centroid.
        mode: "hard" or "momentum".

    Raises:
        TypeError, ValueError: naming the argument; `centroids` is then untouched.

    Source: Dai et al., Cluster Contrast, 2021; hard mode as in Zhang et al., Implicit Sample Extension, CVPR 2022.
    """
    _update(centroids, rows, labels, None, momentum, mode)


def _update(
    centroids: Tensor, rows: Tensor, labels: Tensor, supports: Tensor | None, momentum: float, mode: str
) -> None:
    """With supports [B, k, d] apart: taken after the rows, without a copy of both in one tensor."""
    check_dense("centroids", centroids)
    check_dense("labels", labels)
    rows = in_working_precision("rows", rows)
    if supports is not None:
        supports = in_working_precision("supports", supports)
    momentum = check_number("momentum", momentum, 0, 1)
    check_choice("mode", mode, ("hard", "momentum"))
    torch.ops.ise_fast.update_memory_(centroids, rows, labels, supports, momentum, mode)


@torch.no_grad()
def _refresh_gram_(gram: Tensor, centroids: Tensor, labels: Tensor | None = None) -> None:
    """gram = centroids @ centroids.T, or only the rows and columns of `labels`."""
    torch.ops.ise_fast.refresh_gram_(gram, centroids, labels)


@register_fake("update_memory_")
def _(centroids: Tensor, rows: Tensor, labels: Tensor, supports: Tensor | None, momentum: float, update: str) -> None:
    pass


@register_fake("refresh_gram_")
def _(gram: Tensor, centroids: Tensor, labels: Tensor | None) -> None:
    pass
