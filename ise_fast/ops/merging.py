"""One step of bottom-up clustering (BUC: Lin et al., AAAI 2019) on a sparse graph of distances."""

from __future__ import annotations

import torch
from torch import Tensor

import ise_fast._library  # noqa: F401 - registers torch.ops.ise_fast
from ise_fast._checks import FLOATING, check_dense, check_int, check_label_vector, check_number, check_tensor
from ise_fast.ops._fake import register_fake
from ise_fast.ops.neighbors import knn, radius_graph
from ise_fast.types import CSRGraph, Merges

#: Rows whose nearest neighbours give the first radius of `merge_rows`.
SAMPLE = 2048


def merge_nearest(graph: CSRGraph, labels: Tensor, penalty: float, merges: int) -> Merges:
    """Join the clusters of the nearest pairs of rows, small clusters first.

        D(i, j) = graph(i, j) + penalty (|cluster of i| + |cluster of j|),   i < j in different clusters

    Pairs are taken by rising (D, i, j), sizes as before the step; a pair of one cluster by then is passed over, any
    other joins two clusters, until `merges` clusters are gone or the graph has no more pairs. D is float64.

    On `radius_graph(x, r, metric="sqeuclidean")` the answer is that of all N^2 pairs if `merges` merges were found and
    the last D is less than float32(r) + 2 penalty times the size of the smallest cluster: no pair outside the graph has
    so small a one, rounded to float32 as the graph's values are. Otherwise take a larger r.

    Args:
        graph: square CSRGraph of distances, symmetric; an entry above the diagonal is a pair, those below are ignored.
        labels: [N] int64, cluster of each row, >= 0.
        penalty: lambda >= 0.
        merges: how many, >= 0.

    Returns:
        Merges(labels [N] int64: a joined cluster keeps its lower label, then numbered from 0 by rising label; pairs
        [M, 2] int64 and dissimilarity [M] float64 in the order of merging, M <= merges).

    Raises:
        TypeError, ValueError: naming the argument; a malformed graph, a negative label.

    Example:
        >>> graph = ise_fast.ops.radius_graph(torch.tensor([[0.0], [1.0], [3.0]]), 9.0, metric="sqeuclidean")
        >>> merge_nearest(graph, torch.arange(3), penalty=0.0, merges=1).labels
        tensor([0, 0, 1])
    """
    rows, columns = graph.shape
    if rows != columns:
        raise ValueError(f"graph: expected a square graph, got shape {graph.shape}")
    penalty, merges = check_number("penalty", penalty, 0), check_int("merges", merges, 0)
    parts = graph.indptr, graph.indices, graph.values
    check_dense("labels", labels)
    return Merges(*torch.ops.ise_fast.merge_nearest(*parts, labels, penalty, merges))


def merge_rows(x: Tensor, labels: Tensor, penalty: float, merges: int) -> Merges:
    """`merge_nearest` on all pairs of rows under the squared Euclidean distance, without an N x N matrix.

    A radius graph holds the near pairs; the radius grows until a pair outside it could not have been taken.

    Args:
        x: [N, d] float32 or float64 (float16 and bfloat16 are converted to float32).
        labels: [N] int64, cluster of each row, >= 0.
        penalty: lambda >= 0.
        merges: how many, >= 0; at most one less than there are clusters are made.

    Returns:
        Merges(labels, pairs, dissimilarity) as `merge_nearest`.

    Raises:
        TypeError, ValueError: naming the argument.

    Source: Lin et al., A Bottom-Up Clustering Approach to Unsupervised Person Re-identification, AAAI 2019.
    """
    penalty, merges = check_number("penalty", penalty, 0), check_int("merges", merges, 0)
    rows = check_tensor("x", x, 2, FLOATING)
    sizes = check_label_vector("labels", labels, len(rows), "x").unique(return_counts=True)[1]
    wanted = min(merges, max(len(sizes) - 1, 0))
    if wanted == 0:
        return merge_nearest(radius_graph(rows, 0.0, metric="sqeuclidean"), labels, penalty, 0)
    # Mostly enough pairs if clusters were single rows, as far as some of the rows tell: if not, the radius grows.
    some = rows[torch.linspace(0, len(rows) - 1, min(len(rows), SAMPLE), device=rows.device).long()]
    nearest = knn(rows.float(), 2, y=some.float()).distances[:, 1].sort().values
    place = -(-2 * wanted * len(nearest) // len(rows))
    radius = float(nearest[min(place, len(nearest) - 1)]) * 1.0001
    widest = 4.001 * float(rows.double().square().sum(1).max())
    while True:
        out = merge_nearest(radius_graph(rows, radius, metric="sqeuclidean"), labels, penalty, wanted)
        least = float(torch.tensor(radius, dtype=torch.float32, device="cpu"))  # of a pair outside, as a graph has it
        outside = least + 2 * penalty * int(sizes.min())
        enough = len(out.pairs) == wanted and float(out.dissimilarity[-1]) < outside
        if enough or radius >= widest:
            return out
        radius = min(max(1.3 * radius, widest / 1000), widest)


@register_fake("merge_nearest")
def _(
    indptr: Tensor, indices: Tensor, values: Tensor, labels: Tensor, penalty: float, merges: int
) -> tuple[Tensor, Tensor, Tensor]:
    count = torch.library.get_ctx().new_dynamic_size()
    return (
        torch.empty_like(labels, memory_format=torch.contiguous_format),
        labels.new_empty(count, 2),
        labels.new_empty(count, dtype=torch.float64),
    )
