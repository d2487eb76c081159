"""One step of bottom-up clustering (BUC: Lin et al., AAAI 2019), pair by pair."""

from __future__ import annotations

import torch
from torch import Tensor

from ise_fast._checks import check_device, check_features, check_graph, check_int, check_label_vector, check_number
from ise_fast.types import CSRGraph, Merges


def merge_nearest(graph: CSRGraph, labels: Tensor, penalty: float, merges: int) -> Merges:
    """Join the clusters of the nearest pairs of rows, small clusters first.

    What is near, arguments, result and errors are those of `ise_fast.ops.merge_nearest`.
    """
    check_graph("graph", graph)
    y = check_label_vector("labels", labels, graph.shape[0], "graph")
    check_device("labels", y, "graph", graph.values)
    if len(y) and int(y.min()) < 0:
        raise ValueError(f"labels: expected at least 0, got {int(y.min())}")
    penalty = check_number("penalty", penalty, 0)
    merges = check_int("merges", merges, 0)

    own = y.tolist()
    size = {label: own.count(label) for label in set(own)}
    indptr, indices, values = graph.indptr.tolist(), graph.indices.tolist(), graph.values.double().tolist()
    pairs = sorted(
        (values[p] + penalty * (size[own[i]] + size[own[j]]), i, j)
        for i in range(len(own))
        for p in range(indptr[i], indptr[i + 1])
        if (j := indices[p]) > i and own[j] != own[i]
    )
    joined: list[tuple[float, int, int]] = []
    for d, i, j in pairs:
        if len(joined) == merges:
            break
        low, high = sorted((own[i], own[j]))
        if low == high:
            continue
        own = [low if label == high else label for label in own]
        joined.append((d, i, j))
    number = {label: k for k, label in enumerate(sorted(set(own)))}
    device = y.device
    return Merges(
        torch.tensor([number[label] for label in own], dtype=torch.int64, device=device),
        torch.tensor([pair[1:] for pair in joined], dtype=torch.int64, device=device).reshape(-1, 2),
        torch.tensor([pair[0] for pair in joined], dtype=torch.float64, device=device),
    )


def merge_rows(x: Tensor, labels: Tensor, penalty: float, merges: int) -> Merges:
    """`merge_nearest` on all pairs of rows under the squared Euclidean distance.

    Arguments, result and errors are those of `ise_fast.ops.merge_rows`.
    """
    rows = check_features("x", x).double()
    distance = (rows[:, None] - rows[None]).square().sum(2).float()
    n = len(rows)
    indptr = torch.arange(n + 1, device=rows.device) * n
    every = torch.arange(n, dtype=torch.int32, device=rows.device).repeat(n)
    return merge_nearest(CSRGraph(indptr, every, distance.flatten()), labels, penalty, merges)
