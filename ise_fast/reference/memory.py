"""The cluster memory's update (Dai et al., "Cluster Contrast", 2021; hard mode as in ISE, Zhang et al., CVPR 2022)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ise_fast._checks import (
    check_choice,
    check_columns,
    check_device,
    check_features,
    check_label_range,
    check_label_vector,
    check_number,
    check_tensor,
)


@torch.no_grad()
def update_memory_(centroids: Tensor, rows: Tensor, labels: Tensor, momentum: float, mode: str = "hard") -> None:
    """Move centroids towards the rows of a batch, in place: c <- momentum c + (1 - momentum) row, made unit again.

    Arguments, result and errors are those of `ise_fast.ops.update_memory_`.
    """
    check_tensor("centroids", centroids, 2, (torch.float32, torch.float64))
    check_features("centroids", centroids)
    x = check_features("rows", rows)
    check_columns("rows", x, "centroids", centroids)
    y = check_label_vector("labels", labels, x.shape[0], "rows")
    check_device("labels", y, "rows", x)
    check_label_range("labels", y, centroids.shape[0])
    momentum = check_number("momentum", momentum, 0, 1)
    check_choice("mode", mode, ("hard", "momentum"))

    if mode == "hard":
        similarity = (x.double() * centroids[y].double()).sum(dim=1).to(x.dtype)
        order = [int((similarity.masked_fill(y != label, torch.inf)).argmin()) for label in sorted(set(y.tolist()))]
    else:
        order = list(range(x.shape[0]))
    for i in order:
        label = int(y[i])
        centroids[label] = normalize(momentum * centroids[label] + (1 - momentum) * x[i], dim=0)
