"""Lloyd's k-means with every tie decided: the same labels for any number of threads, on a CPU and on a GPU."""

from __future__ import annotations

import torch
from torch import Tensor

import ise_fast._library  # noqa: F401 - registers torch.ops.ise_fast
from ise_fast._checks import check_int
from ise_fast.ops._fake import register_fake
from ise_fast.ops._inputs import in_working_precision
from ise_fast.types import KMeansResult, KMeansStep


def kmeans_start(x: Tensor, clusters: int, generator: torch.Generator | None = None) -> Tensor:
    """Rows to start from, by k-means++: each drawn in proportion to its squared distance from those chosen.

    The draws come from the CPU, so that every device chooses the same rows. Rows may repeat in value only where there
    are fewer different ones than clusters.

    Args:
        x: [N, d] float32 (float16 and bfloat16 are converted; float64 on a CPU).
        clusters: K, 1 to N.
        generator: of the CPU; None for the global one.

    Returns:
        [K] int64, rows of x in the order in which they were chosen: `x[kmeans_start(x, K)]` are the centres.

    Raises:
        TypeError, ValueError: naming the argument.

    Source: Arthur & Vassilvitskii, k-means++, SODA 2007.
    """
    rows = in_working_precision("x", x).detach()
    k = check_int("clusters", clusters, 1, rows.shape[0], f"x has {rows.shape[0]} rows")
    draws = torch.rand(k, generator=generator, dtype=torch.float64, device="cpu").to(rows.device)
    chosen: Tensor = torch.ops.ise_fast.kmeans_start(rows, draws)
    return chosen


def kmeans_step(x: Tensor, centres: Tensor) -> KMeansStep:
    """Assign every row to its nearest centre by (squared Euclidean distance, index) and add up the rows of each.

    A matrix product proposes centres with a proven bound on its rounding, float64 distances decide. Sums are float64 in
    row order. CPU and CUDA give the same bits.

    Args:
        x: [N, d] float32 (float16 and bfloat16 are converted; float64 on a CPU).
        centres: [K, d] of the same dtype, K >= 1.

    Returns:
        KMeansStep(labels [N] int64, sums [K, d] float64, counts [K] int64, inertia scalar float64, distances [N]
        float64). The next centres are `sums / counts[:, None]` where counts are not 0.

    Raises:
        TypeError, ValueError: naming the argument; NaN or infinity in either.

    Example:
        >>> kmeans_step(torch.tensor([[0.0], [2.0], [3.0]]), torch.tensor([[0.0], [4.0]])).labels
        tensor([0, 0, 1])
    """
    rows, c = in_working_precision("x", x).detach(), in_working_precision("centres", centres).detach()
    return KMeansStep(*torch.ops.ise_fast.kmeans_step(rows, c))


def kmeans(x: Tensor, centres: Tensor, *, iterations: int = 300) -> KMeansResult:
    """Lloyd's iterations from given centres until no label changes, or labels come round.

    A new centre is the float64 mean of its rows in row order, rounded to the precision of x. A centre without rows
    takes the row farthest from its own centre (ties: lowest row) among clusters of more than one, empty centres one
    after the other by index. Of equal rows, one that fills a centre may leave it every time: such circles of labels
    are seen, and end the iterations. On a CPU lower bounds of the distances leave out most pairs of row and centre
    after the first iterations; the labels are those of the plain method.

    Args:
        x: [N, d] float32 (float16 and bfloat16 are converted; float64 on a CPU).
        centres: [K, d] of the same dtype, 1 <= K <= N: where to start, `x[kmeans_start(x, K)]` or the last ones.
        iterations: most assignments, >= 1.

    Returns:
        KMeansResult(labels [N] int64, centres [K, d], inertia, iterations).

    Raises:
        TypeError, ValueError: naming the argument; NaN or infinity in either.

    Source: Lloyd, 1982; bounds: Elkan, ICML 2003.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [9.0]])
        >>> kmeans(x, x[:2]).labels
        tensor([0, 0, 1])
    """
    rows, c = in_working_precision("x", x).detach(), in_working_precision("centres", centres).detach()
    iterations = check_int("iterations", iterations, 1)
    labels, means, inertia, done = torch.ops.ise_fast.kmeans(rows, c, iterations)
    return KMeansResult(labels, means, float(inertia), int(done))


@register_fake("kmeans_start")
def _(x: Tensor, draws: Tensor) -> Tensor:
    return draws.new_empty(draws.shape, dtype=torch.int64)


@register_fake("kmeans_step")
def _(x: Tensor, centres: Tensor) -> tuple[Tensor, ...]:
    n, k = x.shape[0], centres.shape[0]
    return (
        x.new_empty(n, dtype=torch.int64),
        x.new_empty(centres.shape, dtype=torch.float64),
        x.new_empty(k, dtype=torch.int64),
        x.new_empty((), dtype=torch.float64),
        x.new_empty(n, dtype=torch.float64),
    )


@register_fake("kmeans")
def _(x: Tensor, centres: Tensor, iterations: int) -> tuple[Tensor, ...]:
    return (
        x.new_empty(x.shape[0], dtype=torch.int64),
        torch.empty_like(centres, memory_format=torch.contiguous_format),
        x.new_empty((), dtype=torch.float64),
        x.new_empty((), dtype=torch.int64),
    )
