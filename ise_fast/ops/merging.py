"""One step of bottom-up clustering (BUC: Lin et al., AAAI 2019) on a sparse graph of distances."""

from __future__ import annotations

import torch
from torch import Tensor

import ise_fast._library  # noqa: F401 - registers torch.ops.ise_fast
from ise_fast._checks import check_int, check_number
from ise_fast.types import CSRGraph, Merges


def merge_nearest(graph: CSRGraph, labels: Tensor, penalty: float, merges: int) -> Merges:
    """Join the clusters of the nearest pairs of rows, small clusters first.

        D(i, j) = graph(i, j) + penalty (|cluster of i| + |cluster of j|),   i < j in different clusters

    Pairs are taken by rising (D, i, j), sizes as before the step; a pair of one cluster by then is passed over, any
    other joins two clusters, until `merges` clusters are gone or the graph has no more pairs. D is float64.

    On `radius_graph(x, r, metric="sqeuclidean")` the answer is that of all N^2 pairs if `merges` merges were found and
    the last D is at most r + 2 penalty times the size of the smallest cluster: no pair outside the graph has a smaller
    one. Otherwise take a larger r.

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
    return Merges(*torch.ops.ise_fast.merge_nearest(*parts, labels, penalty, merges))


@torch.library.register_fake("ise_fast::merge_nearest")
def _(
    indptr: Tensor, indices: Tensor, values: Tensor, labels: Tensor, penalty: float, merges: int
) -> tuple[Tensor, Tensor, Tensor]:
    count = torch.library.get_ctx().new_dynamic_size()
    return (
        torch.empty_like(labels, memory_format=torch.contiguous_format),
        labels.new_empty(count, 2),
        labels.new_empty(count, dtype=torch.float64),
    )
