"""The memory of cluster centroids that the losses contrast with (Dai et al., "Cluster Contrast", 2021)."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ise_fast._checks import (
    FLOATING,
    check_choice,
    check_dense,
    check_device,
    check_features,
    check_int,
    check_label_vector,
    check_number,
    check_tensor,
)
from ise_fast.nn._buffers import KeepsPrecision
from ise_fast.nn._names import errors_name
from ise_fast.ops.groups import group_members, refresh_groups_
from ise_fast.ops.memory import _refresh_gram_, _update

GRAM_LIMIT = 8192
"""Most centroids for which the Gram matrix is kept (256 MB); above, the loss takes the rows that it needs."""


class ClusterMemory(KeepsPrecision):
    """One unit centroid a cluster, moved towards the batch after each step.

    Call `reset` once an epoch with the new clusters, give the memory to `ISELoss` or `ClusterNCELoss`, and call
    `update` after the backward pass. Centroids are float32 and take no gradient; `state_dict` holds them and the Gram
    matrix, so that training goes on to the bit, and loads into a memory with another number of clusters. Change them
    through `reset` and `update` only. Moved with a model that holds it, a memory keeps its precision where that is cast
    (`half`, `double`).

    Args:
        num_features: d, the width of a feature.
        momentum: in [0, 1]: c <- momentum c + (1 - momentum) row, made unit again. 1 keeps the centroids.
        mode: "hard" takes one row a label, the least similar one; "momentum" every row in the order of the batch;
            "kalman" (experimental, ours) weighs the mean of a label's rows by how certain its centroid is.
        process_noise: kalman only: what a step adds to every centroid's variance, >= 0.

    In mode "kalman" each centroid has one variance p. At `reset` it is r / n for a cluster of n images, r = residual; a
    step adds process_noise to all, and n rows of mean z move c <- unit(c + g (z - c)), p <- (1 - g) p with the gain
    g = p / (p + r / n). A constant g would be the momentum 1 - g.

    Raises:
        TypeError, ValueError: naming the argument.

    Example:
        >>> memory = ClusterMemory(num_features=2)
        >>> memory.reset(torch.tensor([[3.0, 0.0], [0.0, 2.0]]))
        >>> memory.centroids
        tensor([[1., 0.],
                [0., 1.]])
    """

    centroids: Tensor
    variances: Tensor  # [K] float64, mode "kalman" only
    residual: Tensor  # scalar float64, mode "kalman" only

    def __init__(
        self, num_features: int, momentum: float = 0.2, mode: str = "hard", *, process_noise: float = 0.01
    ) -> None:
        super().__init__()
        self.num_features = check_int("num_features", num_features, 1)
        self.momentum = check_number("momentum", momentum, 0, 1)
        self.mode = check_choice("mode", mode, ("hard", "momentum", "kalman"))
        self.process_noise = check_number("process_noise", process_noise, 0)
        self.register_buffer("centroids", torch.empty(0, self.num_features, dtype=torch.float32))
        if mode == "kalman":
            self.register_buffer("variances", torch.empty(0, dtype=torch.float64))
            self.register_buffer("residual", torch.ones((), dtype=torch.float64))
        self._gram: Tensor | None = None

    @property
    def gram(self) -> Tensor | None:
        """[K, K] inner products of the centroids, kept up to date by `update`; None above `GRAM_LIMIT` centroids."""
        if self.centroids.shape[0] > GRAM_LIMIT:
            return None
        if self._gram is None:
            gram = self.centroids.new_empty(2 * self.centroids.shape[:1])
            _refresh_gram_(gram, self.centroids)
            self._gram = gram  # only now: what an interrupt leaves behind must not be taken for it
        return self._gram

    @torch.no_grad()
    def reset(self, centroids: Tensor, *, counts: Tensor | None = None, residual: float | None = None) -> None:
        """Start with new clusters: a copy of `centroids`, each row made unit.

        Args:
            centroids: [K, d] floating, e.g. the mean feature of each cluster; K may differ from before.
            counts: [K] int64, images of each cluster; mode "kalman" needs them.
            residual: mean of 1 - f.c over the images, > 0; mode "kalman" needs it.

        Raises:
            TypeError, ValueError: naming the argument; if it is no finite [K, num_features] matrix, or has a zero row.
        """
        rows = check_features("centroids", centroids).to(self.centroids)
        if rows.shape[1] != self.num_features:
            raise ValueError(f"centroids: expected {self.num_features} columns, got shape {tuple(rows.shape)}")
        norms = rows.norm(dim=1)
        if not norms.all():
            raise ValueError(f"centroids: expected rows with a direction, got zeros in row {int(norms.argmin())}")
        if self.mode == "kalman":
            if counts is None or residual is None:
                raise ValueError("counts: expected counts and residual for mode 'kalman', got None")
            images = check_label_vector("counts", counts, len(rows), "centroids").to(self.variances)
            if not (images > 0).all():
                raise ValueError(f"counts: expected at least 1, got {int(images.min())}")
            self.residual.fill_(check_number("residual", residual, 0, above=True))
            self.variances = self.residual / images
        self.centroids = normalize(rows, dim=1)
        self._gram = None

    @torch.no_grad()
    def update(self, features: Tensor, labels: Tensor, supports: Tensor | None = None) -> None:
        """Move the centroids of the labels towards the batch. Call it after the backward pass.

        Args:
            features: [B, d] floating, unit rows.
            labels: [B] int64, 0 to K - 1.
            supports: [B, k, d], `ISELossOutput.supports`: taken after all features, in their order.

        Raises:
            TypeError, ValueError: naming the argument; the centroids are then untouched.
        """
        batch, width = check_tensor("features", features, 2, FLOATING).shape
        if width != self.num_features:
            raise ValueError(f"features: expected {self.num_features} columns, got shape {tuple(features.shape)}")
        if supports is not None:
            check_dense("supports", supports)
            if supports.dim() != 3 or (supports.shape[0], supports.shape[2]) != (batch, width):
                raise ValueError(f"supports: expected [{batch}, k, {width}], got shape {tuple(supports.shape)}")
        if self.mode == "kalman":
            self._filter(features, labels, supports)
        else:
            with errors_name(rows="features"):
                _update(self.centroids, features, labels, supports, self.momentum, self.mode)
        gram, self._gram = self._gram, None  # forgotten should an interrupt come before both agree again
        if gram is not None:
            _refresh_gram_(gram, self.centroids, labels)
        self._gram = gram

    def _filter(self, features: Tensor, labels: Tensor, supports: Tensor | None) -> None:
        y = check_label_vector("labels", labels, len(features), "features")
        for name, x in (("features", features), ("labels", labels), ("supports", supports)):
            if x is not None:
                check_device(name, x, "centroids", self.centroids)
        rows = check_features("features", features)
        if supports is not None:
            y = torch.cat([y, y.repeat_interleave(supports.shape[1])])
            rows = torch.cat([rows, check_features("supports", supports.flatten(0, 1))])
        clusters = len(self.centroids)
        if len(y) and not 0 <= int(y.min()) <= int(y.max()) < clusters:
            raise ValueError(f"labels: expected 0 to {clusters - 1}, got {int(y.min())} to {int(y.max())}")
        moved, place, n = torch.unique(y, return_inverse=True, return_counts=True)
        sums = torch.zeros((len(moved), self.num_features), dtype=torch.float64, device=rows.device)
        refresh_groups_(sums, rows, group_members(place, len(moved)), place)
        variances = self.variances + self.process_noise
        before, centroids = variances[moved], self.centroids[moved]
        gain = before / (before + self.residual / n)
        towards = centroids + gain[:, None] * (sums / n[:, None] - centroids)
        self.centroids[moved] = normalize(towards, dim=1).to(centroids)
        variances[moved] = (1 - gain) * before
        self.variances = variances

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Moved: the Gram matrix belongs to the tensor as it was."""
        self._gram = None
        super()._apply(fn, recurse)
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        incoming = state_dict.get(prefix + "centroids")
        if isinstance(incoming, Tensor) and incoming.shape[1:] == self.centroids.shape[1:]:
            self.centroids = self.centroids.new_empty(incoming.shape)  # the number of clusters changes by epoch
            if self.mode == "kalman":
                self.variances = self.variances.new_empty(incoming.shape[0])
        state_dict.setdefault(prefix + "_extra_state", None)  # centroids alone are enough
        super()._load_from_state_dict(state_dict, prefix, *args)

    def get_extra_state(self) -> Tensor | None:
        """The Gram matrix: made anew from the centroids it would differ in its last bits from one kept by `update`."""
        return self._gram

    def set_extra_state(self, state: Tensor | None) -> None:
        self._gram = None if state is None else state.to(self.centroids.device, copy=True)  # update writes it

    def extra_repr(self) -> str:
        clusters = self.centroids.shape[0]
        return f"num_features={self.num_features}, momentum={self.momentum}, mode={self.mode!r}, clusters={clusters}"
