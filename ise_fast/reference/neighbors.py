"""Exact nearest neighbours, by brute force in float64.

Every distance is a float64 number with one summation order: lane l of 32 adds the terms l, l + 32, l + 64, ... in
ascending order, then the 32 lanes are folded as a binary tree (16, 8, 4, 2, 1 apart). The answer is a pure function of
the two rows: it does not depend on batch size, threads or device, and equal rows have equal distances.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ise_fast._checks import (
    HALF_OR_SINGLE,
    check_choice,
    check_columns,
    check_features,
    check_int,
    check_number,
)
from ise_fast.types import KNN, CSRGraph

METRICS = ("sqeuclidean", "euclidean", "cosine")
LANES = 32


def knn(x: Tensor, k: int, *, y: Tensor | None = None, metric: str = "sqeuclidean") -> KNN:
    """For each row of y the k rows of x smallest by (distance, index), the distance in float64.

    The order of equal distances, arguments, result and errors are those of `ise_fast.ops.knn`.
    """
    candidates = check_features("x", x, HALF_OR_SINGLE)
    queries = candidates if y is None else check_features("y", y, HALF_OR_SINGLE)
    check_columns("y", queries, "x", candidates)
    check_choice("metric", metric, METRICS)
    k = check_int("k", k, 1, candidates.shape[0], f"x has {candidates.shape[0]} rows")
    few = min(k + 8, candidates.shape[0])
    found = []
    for block, rough, margin in _rough_blocks(queries, candidates, metric):
        near = (
            rough.topk(few, largest=False).indices.sort().values
        )  # ascending, so that a stable sort keeps index order
        exact, order = _exact(queries[block, None], candidates[near], metric).sort(stable=True)
        near = near.gather(1, order)
        if few < candidates.shape[0]:  # rows where an unseen candidate could belong to the answer: compare with all
            unseen = rough.scatter(1, near, torch.inf).amin(1) - margin
            for i in (unseen <= exact[:, k - 1]).nonzero()[:, 0].tolist():
                row, all_near = _exact(queries[block][i], candidates, metric).sort(stable=True)
                exact[i], near[i] = row[:few], all_near[:few]
        found.append((exact[:, :k], near[:, :k]))
    if not found:
        return KNN(candidates.new_empty(0, k), torch.empty(0, k, dtype=torch.int64, device=candidates.device))
    distances, indices = (torch.cat(parts) for parts in zip(*found, strict=True))
    return KNN(in_float32(ieee_sqrt(distances) if metric == "euclidean" else distances), indices)


def radius_graph(x: Tensor, eps: float, *, metric: str = "euclidean") -> CSRGraph:
    """Every pair of rows with distance <= eps, the diagonal included.

    What is compared with eps, arguments, result and errors are those of `ise_fast.ops.radius_graph`.
    """
    rows = check_features("x", x)
    eps = check_number("eps", eps, 0)
    check_choice("metric", metric, METRICS)
    if metric == "cosine":
        rows = of_ordinary_length(rows)
    if metric == "euclidean":
        rounded = torch.tensor(eps, dtype=rows.dtype, device="cpu")
        bound, range_ = rounded.square().item(), torch.finfo(rows.dtype)
        if not range_.tiny <= bound <= range_.max:
            bound = rounded.double().square().item()
    else:
        bound = eps
    found = []
    for block, rough, margin in _rough_blocks(rows, rows, metric):
        close = rough <= bound + margin[:, None]
        close.diagonal(block.start).fill_(True)
        i, j = close.nonzero(as_tuple=True)
        i += block.start
        exact = torch.cat([_exact(rows[a], rows[b], metric) for a, b in zip(i.split(4096), j.split(4096), strict=True)])
        inside = (exact <= bound) | (i == j)
        found.append((i[inside], j[inside], ieee_sqrt(exact[inside]) if metric == "euclidean" else exact[inside]))
    return pairs_to_graph(found, rows.shape[0], rows.device)


def pairs_to_graph(found: Sequence[tuple[Tensor, Tensor, Tensor]], n: int, device: torch.device) -> CSRGraph:
    """Pieces of (row, column, value), ascending, as a square graph with int32 columns and float32 values."""
    empty = torch.empty(0, dtype=torch.int64, device=device)
    i, j, values = (torch.cat(parts) for parts in zip((empty, empty, empty.float()), *found, strict=True))
    indptr = torch.zeros(n + 1, dtype=torch.int64, device=device)
    indptr[1:] = i.bincount(minlength=n).cumsum(0)
    return CSRGraph(indptr, j.int(), in_float32(values), (n, n))


def all_distances(x: Tensor) -> Tensor:
    """[N, N] squared distances, float64, the ones that `knn` orders by."""
    distance = x.new_empty(len(x), len(x), dtype=torch.float64)
    for i, row in enumerate(x):  # into one buffer: small results between the large temporaries would scatter the heap
        distance[i] = _exact(row, x, "sqeuclidean")
    return distance


def fixed_order_sum(terms: Tensor) -> Tensor:
    """Sum [..., d] float64 over d in the order that the head of this file states."""
    lanes = torch.zeros(*terms.shape[:-1], LANES, dtype=torch.float64, device=terms.device)
    for part in terms.split(LANES, dim=-1):
        lanes[..., : part.shape[-1]] += part
    while lanes.shape[-1] > 1:
        half = lanes.shape[-1] // 2
        lanes = lanes[..., :half] + lanes[..., half:]
    return lanes[..., 0]


def of_ordinary_length(x: Tensor) -> Tensor:
    """For the cosine: rows whose squares, or products of them, float64 cannot hold, times a power of two each.

    float32 rows are as they are: float64 holds theirs.
    """
    if x.dtype != torch.float64:
        return x
    largest = x.abs().amax(1) if x.shape[1] else x.new_zeros(len(x))
    odd = largest.isfinite() & (largest > 0) & ((largest > 2.0**200) | (largest < 2.0**-200))
    if not odd.any():
        return x
    half = -torch.frexp(largest[odd]).exponent[:, None].double() / 2  # the power itself may be beyond the range
    out = x.clone()
    out[odd] *= half.floor().exp2()
    out[odd] *= half.ceil().exp2()
    return out


def in_float32(distances: Tensor) -> Tensor:
    """Rounded; the largest number for what is beyond it."""
    return distances.clamp(max=torch.finfo(torch.float32).max).float()


def ieee_sqrt(x: Tensor) -> Tensor:
    """The nearest float64; torch's own root may be one bit off on a CPU, where MKL's vector library takes it."""
    return torch.from_numpy(np.asarray(np.sqrt(x.detach().cpu().numpy()))).to(x.device)


def _exact(a: Tensor, b: Tensor, metric: str) -> Tensor:
    """Distances (squared for euclidean) of rows [..., d], float64, fixed order."""
    a, b = a.double(), b.double()
    if metric != "cosine":
        return fixed_order_sum((a - b).square())
    length = ieee_sqrt(fixed_order_sum(a * a) * fixed_order_sum(b * b))
    similarity = fixed_order_sum(a * b) / torch.where(length > 0, length, 1.0)
    return (1 - similarity).clamp(0, 2)


def _rough_blocks(queries: Tensor, rows: Tensor, metric: str) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Blocks of queries with their distances to all rows by a matrix product, and how far these may be from the exact.

    The margin is generous: rounding of a float64 product of d terms, with a factor to spare.
    """
    q, r = queries.double(), rows.double()
    if metric == "cosine":
        q, r = (v / v.norm(dim=1, keepdim=True).clamp(min=1e-300) for v in (q, r))
    q2, r2 = q.square().sum(1), r.square().sum(1)
    longest = r2.max() if len(r) else r2.sum()
    for start in range(0, len(q), 256):
        block = slice(start, min(start + 256, len(q)))
        product = q[block] @ r.T
        rough = 1 - product if metric == "cosine" else q2[block, None] + r2 - 2 * product
        yield block, rough, 16 * (q.shape[1] + 4) * 2.0**-52 * (q2[block] + longest + 1e-300)
