"""Exact nearest neighbours, by brute force in float64.

Every distance is a float64 number with one summation order: lane l of 32 adds the terms l, l + 32, l + 64, ... in
ascending order, then the 32 lanes are folded as a binary tree (16, 8, 4, 2, 1 apart). The answer is a pure function of
the two rows: it does not depend on batch size, threads or device, and equal rows have equal distances.
"""

from __future__ import annotations

from collections.abc import Iterator

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

    Self is an ordinary candidate: with k duplicates of lower index a row is not its own neighbour. `euclidean` has the
    order of `sqeuclidean`. The cosine distance 1 - x.y / (|x| |y|) of a zero row is 1.

    Args:
        x: [N, d] float32, or float16 or bfloat16, which are converted.
        k: 1 <= k <= N.
        y: [M, d]; None for x itself.
        metric: sqeuclidean, euclidean or cosine.

    Returns:
        KNN(distances [M, k] float32, indices [M, k] int64).

    Raises:
        TypeError, ValueError: naming the argument.
    """
    candidates = check_features("x", x, HALF_OR_SINGLE)
    queries = candidates if y is None else check_features("y", y, HALF_OR_SINGLE)
    check_columns("y", queries, "x", candidates)
    check_choice("metric", metric, METRICS)
    k = check_int("k", k, 1, candidates.shape[0], f"x has {candidates.shape[0]} rows")
    distances = torch.empty(queries.shape[0], k, dtype=torch.float64, device=queries.device)
    indices = torch.empty(queries.shape[0], k, dtype=torch.int64, device=queries.device)
    for i, rough, margin in _rough_rows(queries, candidates, metric):
        near = (rough <= rough.kthvalue(k).values + 2 * margin).nonzero()[:, 0]
        exact, order = _exact_row(queries[i], candidates[near], metric).sort(stable=True)
        distances[i], indices[i] = exact[:k], near[order[:k]]
    return KNN((distances.sqrt() if metric == "euclidean" else distances).float(), indices)


def radius_graph(x: Tensor, eps: float, *, metric: str = "euclidean") -> CSRGraph:
    """Every pair of rows with distance <= eps, the diagonal included.

    `euclidean` compares as scikit-learn's brute force does: the float64 squared distance with eps * eps, which for
    float32 input is rounded: float32(float32(eps)^2). The other metrics compare the float64 distance with eps. The
    diagonal is always stored; it is 0 but for a zero row under cosine, where it is 1.

    Args:
        x: [N, d] float32 or float64 (float16 and bfloat16 are converted to float32).
        eps: >= 0.
        metric: euclidean, sqeuclidean or cosine.

    Returns:
        CSRGraph of [N, N], indices int32, values the float32 distances.

    Raises:
        TypeError, ValueError: naming the argument.
    """
    rows = check_features("x", x)
    eps = check_number("eps", eps, 0)
    check_choice("metric", metric, METRICS)
    if metric == "euclidean":
        bound = torch.tensor(eps, dtype=rows.dtype).square().item()
    else:
        bound = eps
    columns, values = [], []
    for i, rough, margin in _rough_rows(rows, rows, metric):
        rough[i] = 0  # keep the diagonal, also of a zero row, whose cosine distance to itself is 1
        near = (rough <= bound + margin).nonzero()[:, 0]
        exact = _exact_row(rows[i], rows[near], metric)
        inside = (exact <= bound) | (near == i)
        columns.append(near[inside])
        values.append(exact[inside].sqrt() if metric == "euclidean" else exact[inside])
    return rows_to_graph(columns, values, rows.shape[0], rows.device)


def rows_to_graph(columns: list[Tensor], values: list[Tensor], n: int, device: torch.device) -> CSRGraph:
    """Compress a list of rows into a square graph with int32 columns and float32 values."""
    counts = torch.tensor([0, *map(len, columns)], dtype=torch.int64)
    return CSRGraph(
        counts.cumsum(0).to(device),
        torch.cat([torch.empty(0, dtype=torch.int32, device=device), *(c.int() for c in columns)]),
        torch.cat([torch.empty(0, dtype=torch.float32, device=device), *(v.float() for v in values)]),
        (n, n),
    )


def fixed_order_sum(terms: Tensor) -> Tensor:
    """Sum [n, d] float64 over d in the order that the head of this file states."""
    n, d = terms.shape
    lanes = torch.zeros(n, LANES, dtype=torch.float64, device=terms.device)
    for start in range(0, d, LANES):
        part = terms[:, start : start + LANES]
        lanes[:, : part.shape[1]] += part
    while lanes.shape[1] > 1:
        half = lanes.shape[1] // 2
        lanes = lanes[:, :half] + lanes[:, half:]
    return lanes[:, 0]


def _exact_row(query: Tensor, rows: Tensor, metric: str) -> Tensor:
    """Distances (squared for euclidean) of one query to [n, d] rows, float64, fixed order."""
    query, rows = query.double()[None], rows.double()
    if metric != "cosine":
        return fixed_order_sum((rows - query).square())
    length = (fixed_order_sum(rows * rows) * fixed_order_sum(query * query)).sqrt()
    similarity = fixed_order_sum(rows * query) / torch.where(length > 0, length, 1.0)
    return (1 - similarity).clamp(0, 2)


def _rough_rows(queries: Tensor, rows: Tensor, metric: str) -> Iterator[tuple[int, Tensor, float]]:
    """For each query i: i, its distances to all rows by a matrix product, and how far these may be from the exact ones.

    The bound is generous: rounding of a float64 product of d terms, with a factor to spare.
    """
    q, r = queries.double(), rows.double()
    if metric == "cosine":
        q, r = (v / v.norm(dim=1, keepdim=True).clamp(min=1e-300) for v in (q, r))
    q2, r2 = q.square().sum(1), r.square().sum(1)
    longest = r2.max().item() if len(r) else 0.0
    for start in range(0, len(q), 256):
        block = slice(start, start + 256)
        product = q[block] @ r.T
        rough = 1 - product if metric == "cosine" else q2[block, None] + r2 - 2 * product
        for i, row in enumerate(rough, start):
            margin = 16 * (q.shape[1] + 4) * 2.0**-52 * (q2[i].item() + longest + 1e-300)
            yield i, row, margin
