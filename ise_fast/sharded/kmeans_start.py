"""k-means++ over processes, each with its own rows: the rows that `ops.kmeans_start` chooses among all of them.

A draw falls on a row by sums over chunks of 1,024 rows, groups of 32 in them, and rows of these. A chunk may begin on
one process and end on the next ones: the distances of these rows go to all, and the process with the chunk's first row
adds them up.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ise_fast import ops
from ise_fast.ops.shards import pattern_products
from ise_fast.sharded.features import HeldRows

GROUP, CHUNK = 32, 1024  # csrc/math/row_sum.h


def shared_kmeans_start(features: HeldRows, clusters: int, generator: torch.Generator) -> Tensor:
    """Rows to start from.

    Args:
        features: the rows.
        clusters: K, 1 to the number of all rows.
        generator: of the CPU, in the same state on every process.

    Returns:
        [K, d] the rows, on every process.

    Raises:
        PeerError: another process failed, or is gone.
    """
    draws = torch.rand(clusters, generator=generator, dtype=torch.float64, device="cpu").tolist()
    chances = _Chances(features)
    chosen = [min(int(draws[0] * features.rows), features.rows - 1)]
    centres = [chances.see(chosen[0])]
    taken, lowest = {chosen[0]}, 0
    for draw in draws[1:]:
        row = chances.drawn(draw)
        if row is None:  # all rows are equal to chosen ones
            while lowest in taken:
                lowest += 1
            row = lowest
        taken.add(row)
        centres.append(chances.see(row))
    return torch.cat(centres)


class _Chances:
    """The squared distance of every row to the nearest one chosen: of own rows here, of the others elsewhere."""

    def __init__(self, features: HeldRows) -> None:
        self.features, self.peers = features, features.peers
        self.distances = np.full(features.own, np.inf)
        starts, self.counts = features.starts, features.counts
        # Rows at the beginning of a process that belong to a chunk begun before.
        self.heads = [min(n, -start % CHUNK) for n, start in zip(self.counts, starts[:-1], strict=True)]
        ends = [-(-start // CHUNK) for start in starts]
        self.chunks = [end - begin for begin, end in pairwise(ends)]

    def see(self, row: int) -> Tensor:
        """A row is chosen; returns it, [1, d]."""
        features, place = self.features, row - self.features.first
        here = [int(start <= row < start + n) for start, n in zip(features.starts[:-1], self.counts, strict=True)]
        own = features.x[place : place + 1] if here[self.peers.rank] else features.x[:0]
        chosen = self.peers.gather(own, here)
        to_new = self.peers.together(lambda: _squared_distances(features.x, chosen))
        np.minimum(self.distances, to_new, out=self.distances)
        return chosen

    def drawn(self, draw: float) -> int | None:
        """The row that a draw in [0, 1) falls on; None if all distances are 0 (`drawn_row` of kmeans_start.cpp)."""
        chunks = self._chunk_sums()
        total = float(np.cumsum(chunks)[-1])  # one after the other
        if not total > 0:
            return None
        goal = draw * total
        chunk, below = _place(goal, 0.0, chunks)
        rows = np.zeros(CHUNK)
        found = self._rows(chunk * CHUNK)
        rows[: len(found)] = found
        groups = rows.reshape(-1, GROUP)
        group, below = _place(goal, below, _fold(groups))
        return chunk * CHUNK + group * GROUP + _place(goal, below, groups[group])[0]

    def _chunk_sums(self) -> NDArray[np.float64]:
        """[chunks] the sum of each chunk of all rows."""
        rank = self.peers.rank
        heads = self.peers.gather(torch.from_numpy(self.distances[: self.heads[rank]]), self.heads).numpy()
        # The chunk that is not full when own rows end goes on with the heads that follow, as far as it reaches.
        numbers = np.concatenate([self.distances[self.heads[rank] :], heads[sum(self.heads[: rank + 1]) :]])
        whole = np.zeros(self.chunks[rank] * CHUNK)
        numbers = numbers[: len(whole)]
        whole[: len(numbers)] = numbers
        sums = _fold(_fold(whole.reshape(-1, CHUNK // GROUP, GROUP)))
        return self.peers.gather(torch.from_numpy(sums), self.chunks).numpy()

    def _rows(self, start: int) -> NDArray[np.float64]:
        """The distances of the rows of a chunk."""
        edges = [min(max(edge, start), start + CHUNK) for edge in self.features.starts]
        counts = [end - begin for begin, end in pairwise(edges)]
        rank, first = self.peers.rank, self.features.first
        own = self.distances[edges[rank] - first : edges[rank + 1] - first]
        return self.peers.gather(torch.from_numpy(own), counts).numpy()


def _fold(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """[..., 32] -> [...] sums, by the tree of csrc/math/dot.h."""
    while numbers.shape[-1] > 1:
        half = numbers.shape[-1] // 2
        numbers = numbers[..., :half] + numbers[..., half:]
    return np.ascontiguousarray(numbers[..., 0])


def _place(goal: float, below: float, numbers: NDArray[np.float64]) -> tuple[int, float]:
    """Where the goal is reached, and the sum of the numbers before that (`place_of` of csrc/math/row_sum.h)."""
    sums = np.cumsum(np.concatenate([[below], numbers]))
    reached = np.flatnonzero(sums[1:] > goal)
    count = int(reached[0]) + 1 if len(reached) else len(numbers)
    place = int(np.flatnonzero(numbers[:count] > 0)[-1])  # where rounding leaves none, the last one above 0
    return place, float(sums[place])


def _squared_distances(x: Tensor, row: Tensor) -> NDArray[np.float64]:
    """[n] of every row of x from one, [1, d]."""
    if x.device.type == "cpu" and x.dtype == torch.float32:  # a third of a step, which looks for a centre and adds up
        n = len(x)
        indptr, first = torch.arange(n + 1, device="cpu"), torch.zeros(n, dtype=torch.int32, device="cpu")
        distances = pattern_products(x, row, indptr, first, "sqeuclidean")
    else:
        distances = ops.kmeans_step(x, row).distances.cpu()
    return distances.numpy()
