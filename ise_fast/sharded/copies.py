"""Rows of an encoding with the same entries, wherever they lie: a few of them stand for all (see `ops._copies`)."""

from __future__ import annotations

import torch
from torch import Tensor

from ise_fast.ops._copies import USUAL_TERMS, first_equal, keep_rows, row_hashes
from ise_fast.ops._csr import Csr, take_rows
from ise_fast.sharded.encoding import request_rows
from ise_fast.sharded.features import Features
from ise_fast.types import DBSCANResult


def leave_out_copies(features: Features, v: Csr, keep: int) -> tuple[Csr, Tensor | None]:
    """Own rows of the encoding in which all but the first `keep` of equal rows are empty.

    Args:
        features: whose rows they are.
        v: own rows of the encoding.
        keep: how many stay of each crowd.

    Returns:
        The rows, and [n] int64 the first of all rows equal to each own one; or v and None, as on one process.
    """
    peers, starts, first = features.peers, features.starts, features.first
    columns = torch.bincount(v[1], minlength=features.rows)
    peers.sum_(columns)
    terms, rows = int(columns.square().sum()), features.rows
    if terms <= USUAL_TERMS * rows and terms <= rows * rows:
        return v, None
    twin, rank = first_equal(peers.gather(row_hashes(v), features.counts))
    twin, rank = twin[first : first + features.own], rank[first : first + features.own]
    wanted, place = twin.to(torch.int32).unique(return_inverse=True)
    others = take_rows(request_rows(peers, starts, v, wanted), place)
    same = all(a.equal(b) for a, b in zip(others, v, strict=True))
    kept = rank < keep
    if peers.any(not same) or not peers.any(not bool(kept.all())):  # two hashes met: no copies then
        return v, None
    return keep_rows(v, kept), twin


def labels_of_twins(features: Features, found: DBSCANResult, twin: Tensor) -> DBSCANResult:
    """Labels and core flags of own rows, taken from the row that stands for each."""
    labels = features.peers.gather(found.labels.to(torch.int32), features.counts)[twin]
    core = features.peers.gather(found.core_mask.to(torch.uint8), features.counts)[twin]
    return DBSCANResult(labels.long(), core.bool())
