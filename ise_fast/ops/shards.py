"""Internal operators on a part of the rows, for `ise_fast.sharded`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import ise_fast._library  # noqa: F401 - registers torch.ops.ise_fast
from ise_fast.ops._csr import Csr
from ise_fast.ops._fake import register_fake

LANES = 32  # csrc/math/dot.h


def pattern_products(x: Tensor, y: Tensor, indptr: Tensor, indices: Tensor, kind: str) -> Tensor:
    """x_i . y_j, or |x_i - y_j|^2, for every entry (i, j) of a pattern: the float64 numbers of csrc/math/distance.h.

    Args:
        x: [n, d] float32.
        y: [m, d] float32.
        indptr: [n + 1] int64.
        indices: [nnz] int32, rows of y.
        kind: dot or sqeuclidean.

    Returns:
        [nnz] float64.
    """
    out: Tensor = torch.ops.ise_fast.pattern_products(x, y, indptr, indices, kind)
    return out


def softmax_rows(product: Tensor, indptr: Tensor) -> Tensor:
    """[nnz] float32: softmax of 2 (product - largest) over each row, as `k_reciprocal_encoding` computes it."""
    out: Tensor = torch.ops.ise_fast.softmax_rows(product, indptr)
    return out


def reciprocal_bits(nn: Tensor, begin: int, end: int, width: int) -> Tensor:
    """[end - begin, ceil(width / 8)] uint8: bit r of row i says whether its r-th neighbour has i among its first
    `width`, for nn [N, k1] int32."""
    out: Tensor = torch.ops.ise_fast.reciprocal_bits(nn, begin, end, width)
    return out


def expanded_sets(nn: Tensor, bits: Tensor, width: int, begin: int, end: int) -> tuple[Tensor, Tensor]:
    """R*(i) of rows begin to end as (indptr, indices); bits: `reciprocal_bits` of all rows at half the width."""
    indptr, indices = torch.ops.ise_fast.expanded_sets(nn, bits, width, begin, end)
    return indptr, indices


def average_rows(v: Csr, neighbours: Tensor) -> Csr:
    """Row i: the mean of the rows of v that neighbours [n, k2] int32 names, added in that order, divided once."""
    out: Csr = torch.ops.ise_fast.average_rows(*v, neighbours)
    return out


def jaccard_pairs(a: Csr, b: Csr, *, same: bool, eps: float, max_pairs: int) -> Csr:
    """Pairs of rows of two encodings with Jaccard distance <= eps, columns rows of b; same: b is a."""
    out: Csr = torch.ops.ise_fast.jaccard_pairs(*a, *b, same, eps, max_pairs)
    return out


def radius_pairs(x: Tensor, y: Tensor, *, eps: float, metric: str, same: bool) -> Csr:
    """Pairs of rows of y with rows of x within eps, as `ops.radius_graph` compares them; same: x is y."""
    out: Csr = torch.ops.ise_fast.radius_pairs(x, y, eps, metric, same)
    return out


def unite_(parent: Tensor, first: Tensor, second: Tensor) -> None:
    """Unites first[e] with second[e]: in the end parent [N] int32 holds the smallest row of each set."""
    torch.ops.ise_fast.unite_(parent, first, second)


def _fake_csr(rows: Any, like: Tensor, dtype: torch.dtype) -> Csr:
    nnz = torch.library.get_ctx().new_dynamic_size()
    return (
        like.new_empty(rows + 1, dtype=torch.int64),
        like.new_empty(nnz, dtype=torch.int32),
        like.new_empty(nnz, dtype=dtype),
    )


@register_fake("pattern_products")
def _(x: Tensor, y: Tensor, indptr: Tensor, indices: Tensor, kind: str) -> Tensor:
    return x.new_empty(indices.shape[0], dtype=torch.float64)


@register_fake("softmax_rows")
def _(product: Tensor, indptr: Tensor) -> Tensor:
    return product.new_empty(product.shape[0], dtype=torch.float32)


@register_fake("reciprocal_bits")
def _(nn: Tensor, begin: int, end: int, width: int) -> Tensor:
    return nn.new_empty((end - begin, (width + 7) // 8), dtype=torch.uint8)


@register_fake("expanded_sets")
def _(nn: Tensor, bits: Tensor, width: int, begin: int, end: int) -> tuple[Tensor, Tensor]:
    return _fake_csr(end - begin, nn, torch.float32)[:2]


@register_fake("average_rows")
def _(indptr: Tensor, indices: Tensor, values: Tensor, neighbours: Tensor) -> Csr:
    return _fake_csr(neighbours.shape[0], indptr, torch.float32)


@register_fake("jaccard_pairs")
def _(
    a_indptr: Tensor,
    a_indices: Tensor,
    a_values: Tensor,
    b_indptr: Tensor,
    b_indices: Tensor,
    b_values: Tensor,
    same: bool,
    eps: float,
    max_pairs: int,
) -> Csr:
    return _fake_csr(a_indptr.shape[0] - 1, a_indptr, torch.float32)


@register_fake("radius_pairs")
def _(x: Tensor, y: Tensor, eps: float, metric: str, same: bool, block: int = 0, width: int = 0) -> Csr:
    return _fake_csr(y.shape[0], y, torch.float32)


@register_fake("unite_")
def _(parent: Tensor, first: Tensor, second: Tensor) -> None:
    pass
