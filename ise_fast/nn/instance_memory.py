"""A memory with a row for every image (SpCL, MMCL, softened similarity), in groups or not."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ise_fast import ops
from ise_fast._checks import check_features, check_int, check_number, check_tensor
from ise_fast.nn._buffers import KeepsPrecision, take_lengths
from ise_fast.nn._names import errors_name
from ise_fast.types import Groups


class InstanceMemory(KeepsPrecision):
    """One row an image, moved towards its feature after each step; the sums of its groups follow.

    Call `reset` once with the features of all images, or with zeros; `regroup` when there are new labels; and `update`
    after the backward pass. Give `table` to `ops.soft_nce_loss` or `ops.multi_label_loss`, `sums` and `counts` to
    `ops.group_nce_loss`. `state_dict` holds rows and groups, so that training goes on to the bit, and loads into a
    memory of another size. Moved with a model that holds it, a memory keeps its precision where that is cast (`half`).

    Args:
        num_features: d, the width of a feature.
        momentum: in [0, 1]: v <- momentum v + (1 - momentum) f, made unit again. May be changed between steps.

    Raises:
        TypeError, ValueError: naming the argument.

    Example:
        >>> memory = InstanceMemory(num_features=2)
        >>> memory.reset(torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 1.0]]))
        >>> memory.regroup(torch.tensor([0, 1, 1]))
        >>> memory.sums
        tensor([[1., 0.],
                [0., 2.]])
    """

    table: Tensor  # [N, d] unit rows or zeros
    groups: Tensor  # [N] int64, the group of each row
    counts: Tensor  # [K] int64
    sums: Tensor  # [K, d]

    def __init__(self, num_features: int, momentum: float = 0.2) -> None:
        super().__init__()
        self.num_features = check_int("num_features", num_features, 1)
        self.momentum = check_number("momentum", momentum, 0, 1)
        self.register_buffer("table", torch.empty(0, self.num_features, dtype=torch.float32))
        self.register_buffer("groups", torch.empty(0, dtype=torch.int64))
        self.register_buffer("counts", torch.empty(0, dtype=torch.int64))
        self.register_buffer("sums", torch.empty(0, self.num_features, dtype=torch.float32))
        self._members: Groups | None = None

    @property
    def members(self) -> Groups:
        """The rows of each group."""
        if self._members is None or self._members.rows.device != self.groups.device:
            self._members = ops.group_members(self.groups, self.counts.shape[0])
        return self._members

    @torch.no_grad()
    def reset(self, features: Tensor) -> None:
        """Start with new rows: a copy of `features`, each made unit; rows of zeros stay zero. There are no groups then.

        Args:
            features: [N, d] floating.

        Raises:
            TypeError, ValueError: if it is no finite [N, num_features] matrix.
        """
        rows = check_features("features", features).to(self.table)
        if rows.shape[1] != self.num_features:
            raise ValueError(f"features: expected {self.num_features} columns, got shape {tuple(rows.shape)}")
        self.table = normalize(rows, dim=1)
        self.groups = self.groups.new_empty(0)
        self.counts, self.sums = self.counts.new_empty(0), self.sums.new_empty(0, self.num_features)
        self._members = None

    @torch.no_grad()
    def regroup(self, groups: Tensor) -> None:
        """New groups of the rows, whose values stay.

        Args:
            groups: [N] int64, the group of each row from 0 on, -1 for none.

        Raises:
            TypeError, ValueError: naming the argument.
        """
        y = check_tensor("groups", groups, 1, (torch.int64,)).to(self.table.device)
        if len(y) != len(self.table):
            raise ValueError(f"groups: expected one for each of {len(self.table)} rows, got {len(y)}")
        count = int(y.max()) + 1 if len(y) else 0
        self._members = ops.group_members(y, count)
        self.groups, self.counts = y.clone(), self._members.indptr.diff()
        self.sums = self.sums.new_zeros(count, self.num_features)
        ops.refresh_groups_(self.sums, self.table, self._members, torch.arange(count, device=y.device))

    @torch.no_grad()
    def update(self, features: Tensor, index: Tensor) -> None:
        """Move the rows of a batch towards its features, one after the other. Call it after the backward pass.

        Args:
            features: [B, d] floating, unit rows.
            index: [B] int64, rows of the table; repeats allowed.

        Raises:
            TypeError, ValueError: naming the argument; the memory is then untouched.
        """
        with errors_name(rows="features", labels="index", centroids="table"):
            ops.update_memory_(self.table, features, index, self.momentum, "momentum")
        if len(self.counts):
            # A row without a group refreshes the first one, which changes nothing: to leave it out a GPU would be
            # waited for.
            ops.refresh_groups_(self.sums, self.table, self.members, self.groups[index].clamp(min=0))

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        self._members = None
        super()._apply(fn, recurse)
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        take_lengths(self, state_dict, prefix, "table", "groups", "counts", "sums")
        self._members = None
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        rows, groups = self.table.shape[0], self.counts.shape[0]
        return f"num_features={self.num_features}, momentum={self.momentum}, rows={rows}, groups={groups}"
