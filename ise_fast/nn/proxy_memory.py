"""A memory of camera-aware proxies: a row for every camera of every cluster (CAP: Wang et al., AAAI 2021)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ise_fast import ops
from ise_fast._checks import check_device, check_features, check_int, check_label_vector, check_number
from ise_fast.nn._buffers import KeepsPrecision, take_lengths
from ise_fast.nn._names import errors_name


class ProxyMemory(KeepsPrecision):
    """One unit row for each (camera, cluster) that has images, by camera, then cluster.

    Call `reset` once an epoch, `update` after the backward pass. For `ops.soft_nce_loss`: within a camera
    `columns = own(...)[:, None]`, `ranges = camera_ranges(cams)`; across cameras `columns = of_clusters(labels)`.
    Moved with a model that holds it, a memory keeps its precision where that is cast (`half`, `double`).

    Args:
        num_features: d, the width of a feature.
        momentum: in [0, 1]: p <- momentum p + (1 - momentum) f, made unit again.

    Raises:
        TypeError, ValueError: naming the argument.
    """

    proxies: Tensor  # [R, d] unit rows
    labels: Tensor  # [R] int64, cluster of each proxy
    cams: Tensor  # [R] int64, camera of each proxy, rising

    def __init__(self, num_features: int, momentum: float = 0.2) -> None:
        super().__init__()
        self.num_features = check_int("num_features", num_features, 1)
        self.momentum = check_number("momentum", momentum, 0, 1)
        self.register_buffer("proxies", torch.empty(0, self.num_features, dtype=torch.float32))
        self.register_buffer("labels", torch.empty(0, dtype=torch.int64))
        self.register_buffer("cams", torch.empty(0, dtype=torch.int64))

    @torch.no_grad()
    def reset(self, features: Tensor, labels: Tensor, cams: Tensor) -> Tensor:
        """Start with new clusters: each proxy is the unit mean of its images' features (float64, in image order).

        Args:
            features: [N, d] floating, unit rows.
            labels: [N] int64, cluster of each image, -1 for noise, which is left out.
            cams: [N] int64, camera of each image, >= 0.

        Returns:
            [N] int64, the proxy of each image, -1 for noise: what batches are balanced over.

        Raises:
            TypeError, ValueError: naming the argument; no image in a cluster.
        """
        x = check_features("features", features)
        if x.shape[1] != self.num_features:
            raise ValueError(f"features: expected {self.num_features} columns, got shape {tuple(x.shape)}")
        y, c = (
            check_label_vector("labels", labels, len(x), "features"),
            check_label_vector("cams", cams, len(x), "features"),
        )
        check_device("labels", y, "features", x)
        check_device("cams", c, "features", x)
        if len(c) and int(c.min()) < 0:
            raise ValueError(f"cams: expected at least 0, got {int(c.min())}")
        kept = y >= 0
        if not kept.any():
            raise ValueError("labels: expected at least one image in a cluster, got noise only")
        clusters = int(y.max()) + 1
        names, own = torch.unique(c[kept] * clusters + y[kept], return_inverse=True)
        groups = torch.full_like(y, -1)
        groups[kept] = own
        sums = torch.zeros(len(names), x.shape[1], dtype=torch.float64, device=x.device)
        ops.refresh_groups_(sums, x, ops.group_members(groups, len(names)), torch.arange(len(names), device=x.device))
        self.proxies = normalize(sums, dim=1).to(self.proxies)
        self.labels = (names % clusters).to(self.labels.device)
        self.cams = (names // clusters).to(self.cams.device)
        return groups

    def own(self, labels: Tensor, cams: Tensor) -> Tensor:
        """[B] the proxy of each (cluster, camera); -1 where there is none."""
        found = (self.labels == labels[:, None]) & (self.cams == cams[:, None])
        return torch.where(found.any(1), found.long().argmax(1), -1)

    def camera_ranges(self, cams: Tensor) -> Tensor:
        """[B, 2] first proxy and the one past the last of each camera."""
        ends = [torch.searchsorted(self.cams, cams.contiguous(), right=right) for right in (False, True)]
        return torch.stack(ends, dim=1)

    def of_clusters(self, labels: Tensor) -> Tensor:
        """[B, s] the proxies of each cluster, over all cameras, padded by -1."""
        found = self.labels == labels[:, None]
        width = int(found.sum(1).max()) if found.numel() else 0
        rows = torch.arange(len(self.labels), device=labels.device)
        columns = torch.where(found, rows, len(rows)).sort(dim=1).values[:, :width]
        return torch.where(columns < len(rows), columns, -1)

    @torch.no_grad()
    def update(self, features: Tensor, own: Tensor) -> None:
        """Move proxies towards the rows of a batch, one after the other. Call it after the backward pass.

        Args:
            features: [B, d] floating, unit rows.
            own: [B] int64, the proxy of each row.

        Raises:
            TypeError, ValueError: naming the argument; the memory is then untouched.
        """
        with errors_name(rows="features", labels="own", centroids="proxies"):
            ops.update_memory_(self.proxies, features, own, self.momentum, "momentum")

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        take_lengths(self, state_dict, prefix, "proxies", "labels", "cams")
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        return f"num_features={self.num_features}, momentum={self.momentum}, proxies={self.proxies.shape[0]}"
