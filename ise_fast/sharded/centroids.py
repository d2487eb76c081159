"""Means of clusters whose rows lie on many processes, summed in the order of one."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ise_fast.sharded.features import HeldRows

#: Columns are summed in so many parts, that copies of rows in float64 stay a part of the rows.
PARTS = 16
#: Numbers that are no burden: less is not worth a message.
FEW = 1 << 18


def shared_centroids(features: HeldRows, labels: Tensor) -> Tensor:
    """Mean feature of each cluster, outliers left out: `ise_fast.methods.cluster_centroids` of all rows together.

    Args:
        features: the rows.
        labels: [n] int64 cluster of each own row, -1 for outliers.

    Returns:
        [K, d] float32 unit rows on every process, on the device of the rows.
    """
    most = int(labels.max()) if len(labels) else -1
    clusters = 1 + max(number for (number,) in features.peers.numbers(most))
    return shared_means(features, labels, clusters, _unit_means)


def shared_means(
    features: HeldRows, labels: Tensor, clusters: int, mean_of: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """What follows from the sums of the clusters' rows.

    Sums of float64 go from process to process, each of which adds its rows: in the order of all rows, so the bits are
    those of one process. Some columns at a time: then all processes work, each on other columns.

    Args:
        features: the rows.
        labels: [n] int64 cluster of each own row; rows of -1 are in none.
        clusters: K, the same on every process.
        mean_of: sums [K, d] float64 and sizes [K] -> [K, d] of the dtype of the rows.

    Returns:
        [K, d] what came out, on every process, on the device of the rows.
    """
    peers, x = features.peers, features.x
    labels = labels.to(x.device)
    if clusters == 0:
        return x.new_zeros((0, features.width))
    order = torch.argsort(labels, stable=True)
    order = order[int((labels < 0).sum()) :]
    own = labels[order]
    counts = torch.bincount(own, minlength=clusters)
    sizes = counts.clone()
    peers.sum_(sizes)
    width = max(-(-features.width // PARTS), FEW // (features.rows + clusters))
    columns = [slice(start, min(start + width, features.width)) for start in range(0, features.width, width)]

    # What the processes before have summed comes first in each cluster.
    place = torch.cat([torch.arange(clusters, device=x.device), own]).argsort(stable=True)

    def add(number: int, sums: Tensor) -> Tensor:
        rows = torch.cat([sums, x[order, columns[number]].double()])[place]
        return torch.segment_reduce(rows, "sum", lengths=counts + 1, axis=0)

    def begin(number: int) -> Tensor:
        part = columns[number]
        return torch.zeros((clusters, part.stop - part.start), dtype=torch.float64, device=x.device)

    sums = peers.pass_along(len(columns), begin, add)
    means = peers.together(lambda: mean_of(torch.cat(sums, 1), sizes) if sums else None)
    return peers.from_last(x.new_empty((clusters, features.width)) if means is None else means)


def _unit_means(sums: Tensor, sizes: Tensor) -> Tensor:
    return F.normalize(sums / sizes[:, None], dim=1).float()
