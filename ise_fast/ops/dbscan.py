"""DBSCAN (Ester et al., KDD 1996) with the labels of scikit-learn."""

from __future__ import annotations

import torch
from torch import Tensor

import ise_fast._library  # noqa: F401 - registers torch.ops.ise_fast
from ise_fast._checks import check_all_dense, check_int, check_number, check_tensor
from ise_fast.ops._fake import register_fake
from ise_fast.types import CSRGraph, DBSCANResult


def dbscan(graph: CSRGraph | Tensor, eps: float, min_samples: int = 4) -> DBSCANResult:
    """Density clusters of a distance graph.

    A point is a core point if at least `min_samples` points, itself included, lie within eps. Clusters are numbered by
    their lowest core index: everything not yet labelled that can be reached from it through core points. So a border
    point belongs to the first cluster that reaches it; the rest is noise, -1.

    In a sparse graph an entry that is not stored is no neighbour, a stored zero is one, and a diagonal that is not
    stored counts as self; a stored or dense diagonal above eps leaves self out. Asymmetric graphs are followed along
    their rows, as scikit-learn does. float32 distances are compared with float32(eps).

    Args:
        graph: square CSRGraph with ascending columns in each row, or dense [N, N]; float32 or float64 distances,
            finite, >= 0.
        eps: >= 0.
        min_samples: >= 1.

    Returns:
        DBSCANResult(labels [N] int64, core_mask [N] bool), on the device of the graph.

    Raises:
        TypeError: if graph is neither, or on a wrong dtype.
        ValueError: on a malformed graph, a distance that is negative or not finite, eps or min_samples out of range.

    Example:
        >>> line = torch.tensor([0.0, 0.1, 0.2, 5.0])
        >>> dbscan((line[:, None] - line).abs(), eps=0.15, min_samples=2).labels
        tensor([ 0,  0,  0, -1])
    """
    eps = check_number("eps", eps, 0)
    min_samples = check_int("min_samples", min_samples, 1)
    if isinstance(graph, CSRGraph):
        rows, columns = graph.shape
        if rows != columns:
            raise ValueError(f"graph: expected a square graph, got shape {graph.shape}")
        if graph.indptr.numel() != rows + 1:
            raise ValueError(f"graph.indptr: expected {rows + 1} offsets for {rows} rows, got {graph.indptr.numel()}")
        parts = graph.indptr, graph.indices, graph.values
        check_all_dense(**dict(zip(("graph.indptr", "graph.indices", "graph.values"), parts, strict=True)))
        return DBSCANResult(*torch.ops.ise_fast.dbscan(*parts, eps, min_samples))
    matrix = check_tensor("graph", graph, 2, (torch.float32, torch.float64))
    return DBSCANResult(*torch.ops.ise_fast.dbscan_dense(matrix, eps, min_samples))


def _fake_result(like: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    return like.new_empty(rows, dtype=torch.int64), like.new_empty(rows, dtype=torch.bool)


@register_fake("dbscan")
def _(indptr: Tensor, indices: Tensor, values: Tensor, eps: float, min_samples: int) -> tuple[Tensor, Tensor]:
    return _fake_result(values, indptr.shape[0] - 1)


@register_fake("dbscan_dense")
def _(graph: Tensor, eps: float, min_samples: int) -> tuple[Tensor, Tensor]:
    return _fake_result(graph, graph.shape[0])
