"""The core sample that is nearest to each of some new rows."""

from __future__ import annotations

import torch
from torch import Tensor

import ise_fast._library  # noqa: F401 - registers torch.ops.ise_fast
from ise_fast import ops
from ise_fast.ops._csr import Csr, offsets_of, take_rows
from ise_fast.ops.shards import pattern_products, softmax_rows
from ise_fast.reference.k_reciprocal import half_width
from ise_fast.types import CSRGraph

NUMBERS = 1 << 22  # of a block of dense rows
ROWS = 1024  # of a block


def nearest_by_features(core: Tensor, new: Tensor, eps: float, metric: str) -> Tensor:
    """Places in `core` [C, d] of the rows nearest to `new` [M, d], or -1 beyond eps.

    float64 is compared as float32, seen from the first core sample: where all rows are far from 0 they would be one.
    """
    if core.dtype == torch.float64 and metric != "cosine":
        core, new = core - core[0], new.double() - core[0]
    near = ops.knn(core.float(), 1, y=new.float(), metric=metric)
    within = near.distances[:, 0] <= torch.tensor(eps, dtype=torch.float32)
    return torch.where(within, near.indices[:, 0], -1)


def nearest_by_distances(distances: Tensor | CSRGraph, core: Tensor, eps: float) -> Tensor:
    """The same from distances [M, N] to all fitted samples, of which `core` [C] lists the core samples."""
    rows, fitted = distances.shape
    values = distances.values if isinstance(distances, CSRGraph) else distances
    if bool((values < 0).any()):
        raise ValueError(f"X: expected distances of at least 0, got {values.min().item()}")
    within = values <= torch.tensor(eps, dtype=values.dtype)
    if isinstance(distances, CSRGraph):
        row = torch.arange(rows, device=core.device).repeat_interleave(distances.indptr.diff())[within]
        column = distances.indices[within].long()
    else:
        row, column = within.nonzero(as_tuple=True)
    values = values[within]
    place = core.new_full((fitted,), -1)
    place[core] = torch.arange(len(core), device=core.device)
    kept = place[column] >= 0
    row, column, values = row[kept], column[kept], values[kept]
    order = torch.argsort(values, stable=True)  # of equal distances the lower column stays first
    order = order[torch.argsort(row[order], stable=True)]
    row, column = row[order], column[order]
    first = torch.ones_like(row, dtype=torch.bool)
    first[1:] = row[1:] != row[:-1]
    nearest = core.new_full((rows,), -1)
    nearest[row[first]] = place[column[first]]
    return nearest


def nearest_by_jaccard(fitted: Tensor, core: Tensor, new: Tensor, k1: int, k2: int, eps: float) -> Tensor:
    """The same by the Jaccard distance that `JaccardDBSCAN` defines for a new row.

    Args:
        fitted: [N, d] float32 rows of `fit`.
        core: [C] which of them are core samples.
        new: [M, d] float32.
        k1: as given; all fitted samples where there are fewer.
        k2: as given.
        eps: in [0, 1).
    """
    count, width = len(fitted), min(k1, len(fitted))
    k2 = min(k2, width)
    near = ops.knn(fitted, width)
    # Where everybody is everybody's neighbour, a new row is too.
    reach = near.distances[:, -1] if k1 <= count else torch.full_like(near.distances[:, -1], torch.inf)
    encode = torch.ops.ise_fast.k_reciprocal_encoding
    alone, averaged = (encode(fitted, near.indices, k) for k in (1, k2))
    result = []
    for block in new.split(max(1, min(ROWS, NUMBERS // count))):
        distances, nearest = ops.knn(fitted, width, y=block)
        reciprocal = distances <= reach[nearest]
        own = _encode_new(fitted, near.indices, block, nearest, reciprocal)
        for place in range(k2 - 1):
            indptr, column, values = take_rows(alone, nearest[:, place])
            row = torch.arange(len(block), device=block.device).repeat_interleave(indptr.diff())
            own[row, column.long()] += values  # each position once
        own *= reciprocal.any(1, keepdim=True) / k2  # what is nobody's neighbour is near to nothing
        result.append(nearest_by_distances(_distances(averaged, own, eps), core, eps))
    return torch.cat(result)


def _encode_new(fitted: Tensor, nn: Tensor, new: Tensor, nearest: Tensor, reciprocal: Tensor) -> Tensor:
    """V of new rows over the fitted ones, [M, N] float32; zero for a row that is nobody's neighbour.

    Args:
        fitted: [N, d].
        nn: [N, k1] nearest fitted rows of each.
        new: [M, d].
        nearest: [M, k1] nearest fitted rows.
        reciprocal: [M, k1] whether the new row is a neighbour of that row too.
    """
    rows = torch.arange(len(new), device=new.device)[:, None]
    members = torch.zeros(len(new), len(fitted), dtype=torch.bool, device=new.device)
    members[rows, nearest] = reciprocal  # R
    row, column = reciprocal.nonzero(as_tuple=True)
    sample = nearest[row, column]
    half = nn[:, : half_width(nn.shape[1])]
    of_sample = half[sample]  # [P, h], of which those are in H whose own half lists hold the sample
    in_half = (half[of_sample] == sample[:, None, None]).any(-1)
    shared = (members[row[:, None], of_sample] & in_half).sum(1)
    joins = in_half & (3 * shared > 2 * in_half.sum(1))[:, None]
    expanded = members.clone()
    expanded[row[:, None].expand_as(of_sample)[joins], of_sample[joins]] = True  # R*
    row, column = expanded.nonzero(as_tuple=True)
    indptr = offsets_of(expanded.sum(1))
    products = pattern_products(new, fitted, indptr, column.int(), "dot")
    encoding = torch.zeros(len(new), len(fitted), device=new.device)
    encoding[row, column] = softmax_rows(products, indptr)
    return encoding


def _distances(averaged: Csr, own: Tensor, eps: float) -> CSRGraph:
    """Jaccard distances within eps of the new rows to the fitted ones: both lie in one encoding."""
    indptr, indices, values = averaged
    count, added = len(indptr) - 1, len(own)
    row, column = own.nonzero(as_tuple=True)
    ends = indptr[-1] + torch.bincount(row, minlength=added).cumsum(0)
    graph = torch.ops.ise_fast.jaccard_graph(
        torch.cat([indptr, ends]),
        torch.cat([indices, column.to(indices.dtype)]),
        torch.cat([values, own[row, column]]),
        eps,
        count,
        count + added,
        added * (count + added),
    )
    indptr, indices, values = graph
    to_fitted = indices < count
    row = torch.arange(added, device=own.device).repeat_interleave(indptr.diff())[to_fitted]
    indptr = offsets_of(torch.bincount(row, minlength=added))
    return CSRGraph(indptr, indices[to_fitted], values[to_fitted], (added, count))
