"""Compressed rows as the operators take and give them; `ise_fast.types.CSRGraph` is what users see."""

from __future__ import annotations

import torch
from torch import Tensor

#: indptr [n + 1] int64, indices [nnz], values [nnz]
Csr = tuple[Tensor, Tensor, Tensor]


def offsets_of(lengths: Tensor) -> Tensor:
    """[n + 1] int64: where rows of these lengths begin, and where the last ends."""
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])


def take_rows(v: Csr, rows: Tensor) -> Csr:
    """Some rows, in the order given, each as often as it is named."""
    indptr, indices, values = v
    lengths = indptr.diff()[rows]
    offsets = offsets_of(lengths)
    shift = (indptr[rows] - offsets[:-1]).repeat_interleave(lengths)
    entry = shift + torch.arange(len(shift), device=shift.device)
    return offsets, indices[entry], values[entry]
