"""Exact nearest neighbours and radius graphs."""

from __future__ import annotations

from typing import overload

import torch
from torch import Tensor

import ise_fast._library  # noqa: F401 - registers torch.ops.ise_fast
from ise_fast._checks import HALF_OR_SINGLE, check_choice, check_int, check_number, check_tensor
from ise_fast.ops._candidates import nearest_candidates
from ise_fast.ops._fake import register_fake
from ise_fast.reference.neighbors import of_ordinary_length
from ise_fast.types import KNN, CertifiedKNN, CSRGraph

METRICS = ("sqeuclidean", "euclidean", "cosine")


@overload
def knn(x: Tensor, k: int, *, y: Tensor | None = ..., metric: str = ...) -> KNN: ...


@overload
def knn(
    x: Tensor,
    k: int,
    *,
    y: Tensor | None = ...,
    metric: str = ...,
    candidates: Tensor,
    beyond: Tensor | None = ...,
) -> CertifiedKNN: ...


def knn(
    x: Tensor,
    k: int,
    *,
    y: Tensor | None = None,
    metric: str = "sqeuclidean",
    candidates: Tensor | None = None,
    beyond: Tensor | None = None,
) -> KNN | CertifiedKNN:
    """For each row of y the k rows of x smallest by (distance, index).

    The distance is a float64 number with one summation order (csrc/math/distance.h), so the answer is a function of the
    rows alone: no block size, thread count or device enters, and CPU and CUDA give the same bits. Self is an ordinary
    candidate: a row with k duplicates of lower index is not its own neighbour. `euclidean` has the order of
    `sqeuclidean`. The cosine distance 1 - x.y / (norm x . norm y) of a zero row is 1.

    A float32 matrix product (half of it when y is None) filters the pairs with a proven bound on its rounding; the few
    candidates that remain are compared exactly. Rows with more ties than the filter resolves are searched once more.
    On the CPU a sample decides whether the product takes only the first principal axes, with bounds on what they leave,
    or, in up to 16 dimensions, whether a k-d tree takes its place. Which of them ran does not show in the answer.

    Args:
        x: [N, d] float32 (float16 and bfloat16 are converted).
        k: how many, 1 to N.
        y: [M, d]; None for x itself.
        metric: sqeuclidean, euclidean or cosine.
        candidates: [M, c] int32 or int64, rows of x from elsewhere (an approximate index) to choose from, -1 for none;
            repeats count once. The answer is exact among them, and what it says of all rows is in `certified`. Labels
            made of approximate neighbours suffer before recall does (docs/scale.md).
        beyond: [M] float32 or float64, what whoever gave the candidates can prove: no other row is nearer than this.

    Returns:
        KNN(distances [M, k] float32, its largest number for what is beyond it; indices [M, k] int64); with candidates
        CertifiedKNN, which also has certified [M] bool: these are the k nearest of all rows, because all rows were
        candidates, or because `beyond` says so.

    Raises:
        TypeError: on a wrong dtype.
        ValueError: on a wrong shape or device, k out of range, an unknown metric, NaN or infinity.

    Example:
        >>> knn(torch.tensor([[0.0], [2.0], [3.0]]), 2).indices.tolist()
        [[0, 1], [1, 2], [2, 1]]
    """
    base = _features("x", x)
    queries = None if y is None else _features("y", y)
    check_choice("metric", metric, METRICS)
    k = check_int("k", k, 1, base.shape[0], f"x has {base.shape[0]} rows")
    if candidates is not None:
        return nearest_candidates(base, k, base if queries is None else queries, metric, candidates, beyond)
    if beyond is not None:
        raise ValueError("beyond: expected candidates with it, got none")
    distances, indices, _ = torch.ops.ise_fast.knn(base, k, queries, metric)
    return KNN(distances, indices)


def radius_graph(x: Tensor, eps: float, *, metric: str = "euclidean") -> CSRGraph:
    """Every pair of rows with distance <= eps, the diagonal included.

    `euclidean` compares as scikit-learn's brute force does: the float64 squared distance with eps * eps, which for
    float32 input is rounded: float32(float32(eps)^2), if that is a normal number. The other metrics compare the float64
    distance with eps. The distances are those of `knn`: a pair within the last float64 bits of eps may differ from
    scikit-learn, which sums in the order of its matrix product. Memory is proportional to the number of pairs.

    Args:
        x: [N, d] float32 or float64 (float16 and bfloat16 are converted to float32).
        eps: >= 0, in the units of the metric.
        metric: euclidean, sqeuclidean or cosine.

    Returns:
        CSRGraph of [N, N]: indices int32, values the float32 distances; a value never exceeds float32(eps) except on
        the diagonal (cosine distance 1 of a zero row to itself).

    Raises:
        TypeError: on a wrong dtype.
        ValueError: on a wrong shape, negative eps, an unknown metric, NaN or infinity.

    Example:
        >>> radius_graph(torch.tensor([[0.0], [2.0], [3.0]]), 1.0).indices.tolist()
        [0, 1, 2, 1, 2]
    """
    rows = _features("x", x, (*HALF_OR_SINGLE, torch.float64))
    eps = check_number("eps", eps, 0)
    check_choice("metric", metric, METRICS)
    if metric == "cosine" and not torch.compiler.is_compiling():
        rows = of_ordinary_length(rows)
    return CSRGraph(*torch.ops.ise_fast.radius_graph(rows, eps, metric))


def _features(name: str, x: Tensor, dtypes: tuple[torch.dtype, ...] = HALF_OR_SINGLE) -> Tensor:
    """The matrix in float32 (float64 stays); the operators check its shape and values."""
    matrix = check_tensor(name, x, 2, dtypes)
    return (matrix if matrix.dtype == torch.float64 else matrix.float()).detach()


@register_fake("knn")
def _(
    x: Tensor, k: int, y: Tensor | None = None, metric: str = "sqeuclidean", block: int = 0, width: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    shape = ((x if y is None else y).shape[0], k)
    integers = x.new_empty(shape, dtype=torch.int64)
    return x.new_empty(shape), integers, x.new_empty((), dtype=torch.int64)


@register_fake("radius_graph")
def _(
    x: Tensor, eps: float, metric: str = "euclidean", block: int = 0, width: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    pairs = torch.library.get_ctx().new_dynamic_size()
    indptr = x.new_empty(x.shape[0] + 1, dtype=torch.int64)
    return indptr, x.new_empty(pairs, dtype=torch.int32), x.new_empty(pairs, dtype=torch.float32)
