"""Rows of an encoding with the same entries: they have the same distances, so a few of them stand for all."""

from __future__ import annotations

import torch
from torch import Tensor

from ise_fast.ops._csr import Csr, offsets_of

#: Products a row that the Jaccard distance of real features takes at most; only beyond it are copies worth a search.
USUAL_TERMS = 25_000


def leave_out_copies(v: Csr, keep: int) -> tuple[Csr, Tensor | None]:
    """V' in which all but the first `keep` of rows with equal entries are empty.

    For DBSCAN with min_samples = keep nothing is lost: a point near a crowd of copies has its min_samples neighbours
    among the first of them, the copies left out have the label and core flag of the first, and they are empty, so
    nobody's neighbours.

    Args:
        v: (indptr [N + 1], indices [nnz], values [nnz]) of the encoding.
        keep: how many stay of each crowd, at least 1.

    Returns:
        The encoding, and [N] int64 the first row equal to each; the encoding as it came and None where the search
        for copies would cost more than it saves, or finds none to leave out.
    """
    indptr, indices, _ = v
    rows = indptr.shape[0] - 1
    one = torch.ones((), dtype=torch.int64, device=indices.device).expand(indices.shape)
    in_column = one.new_zeros(rows).scatter_add_(0, indices.long(), one)  # bincount would wait for a GPU twice
    terms = int(in_column.square().sum())
    if terms <= USUAL_TERMS * rows and terms <= rows * rows:
        return v, None
    twin, rank = first_equal_rows(v)
    kept = rank < keep
    if bool(kept.all()):
        return v, None
    return keep_rows(v, kept), twin


def first_equal_rows(v: Csr) -> tuple[Tensor, Tensor]:
    """The first row with the same entries as each row, and each row's place among those, from 0: both [N] int64."""
    indptr, indices, values = v
    rows = indptr.shape[0] - 1
    alone = torch.arange(rows, device=indptr.device)
    if rows == 0:
        return alone, alone
    row = alone.repeat_interleave(indptr.diff())
    twin, rank = first_equal(row_hashes(v))
    bits = values.contiguous().view(torch.int32).long()  # equal hashes are compared, entry by entry

    lengths = indptr.diff()
    same = bool((lengths == lengths[twin]).all())
    if same:
        source = torch.arange(indices.shape[0], device=indptr.device) + (indptr[:-1][twin] - indptr[:-1])[row]
        same = torch.equal(indices, indices[source]) and torch.equal(bits, bits[source])
    return (twin, rank) if same else (alone, torch.zeros_like(alone))  # two hashes in 2^64 met: no copies then


def row_hashes(v: Csr) -> Tensor:
    """[N] int64 of each row's entries: a sum of 64-bit hashes, which wraps, so in any order."""
    indptr, indices, values = v
    mixed = _mix(_mix(indices.long() + 1) + values.contiguous().view(torch.int32).long())
    sums = torch.cat((mixed.new_zeros(1), mixed.cumsum(0)))
    return sums[indptr[1:]] - sums[indptr[:-1]]


def first_equal(hashes: Tensor) -> tuple[Tensor, Tensor]:
    """For each number the place of the first equal one, and how many equal ones are before it: both [N] int64."""
    ordered, order = torch.sort(hashes, stable=True)
    starts = torch.cat((ordered.new_ones(min(len(ordered), 1), dtype=torch.bool), ordered[1:] != ordered[:-1]))
    group = starts.cumsum(0) - 1
    first = starts.nonzero()[:, 0]
    twin, rank = torch.empty_like(order), torch.empty_like(order)
    twin[order] = order[first[group]]
    rank[order] = torch.arange(len(order), device=order.device) - first[group]
    return twin, rank


def keep_rows(v: Csr, kept: Tensor) -> Csr:
    """The matrix in which the other rows are empty."""
    indptr, indices, values = v
    entries = kept.repeat_interleave(indptr.diff())
    return offsets_of(torch.where(kept, indptr.diff(), 0)), indices[entries], values[entries]


def _mix(x: Tensor) -> Tensor:
    """Every bit of 64 depends on every other (multiply and shift, as in splitmix64)."""
    x = (x ^ (x >> 30)) * -4658895280553007687
    return (x ^ (x >> 27)) * -7723592293110705685
