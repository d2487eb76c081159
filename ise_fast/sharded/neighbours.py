"""The nearest rows of all, while blocks of them go by: merged by (float64 distance, index), as one process orders."""

from __future__ import annotations

import torch
from torch import Tensor

from ise_fast import ops
from ise_fast.ops.shards import pattern_products
from ise_fast.sharded.features import Features


class Nearest:
    """The k nearest of the rows seen so far, for each row of y.

    `ops.knn` returns float32 distances, by which two rows may tie that do not: so the float64 ones are computed again.

    Args:
        y: [n, d] float32.
        k: how many.
    """

    def __init__(self, y: Tensor, k: int) -> None:
        self.y, self.k = y, k
        self.distances = y.new_empty((len(y), 0), dtype=torch.float64)
        self.indices = y.new_empty((len(y), 0), dtype=torch.int32)

    def see(self, first: int, block: Tensor) -> None:
        """Rows first, first + 1, ... of the whole; each row once."""
        if len(self.y) == 0 or len(block) == 0:
            return
        k = min(self.k, len(block))
        found = ops.knn(block, k, y=self.y).indices
        offsets = torch.arange(0, found.numel() + 1, k, device=found.device)
        local = found.to(torch.int32).flatten()
        exact = pattern_products(self.y, block, offsets, local, "sqeuclidean").view_as(found)
        self.distances, self.indices = smallest(
            torch.cat([self.distances, exact], 1), torch.cat([self.indices, found.to(torch.int32) + first], 1), self.k
        )


def smallest(distances: Tensor, indices: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k smallest (distance, index) of each row, in order."""
    order = indices.argsort(dim=1)
    distances, indices = distances.gather(1, order), indices.gather(1, order)
    order = distances.argsort(dim=1, stable=True)[:, :k]
    return distances.gather(1, order), indices.gather(1, order)


def own_neighbours(features: Features, k: int) -> Tensor:
    """[n, k] int32: the k rows of all nearest to each own row, by (distance, index): those of `ops.knn`."""
    parts = []
    for _, rows in features.pieces():
        nearest = Nearest(rows, k)
        features.turn(nearest.see)
        if len(rows):
            parts.append(nearest.indices.to(features.home))
    return torch.cat(parts) if parts else torch.empty((0, k), dtype=torch.int32, device=features.home)
