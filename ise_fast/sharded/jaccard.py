"""The Jaccard graph of own rows: V' goes round the ring, so that both rows of a pair meet whole."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ise_fast._collapse import too_many_pairs
from ise_fast.ops._csr import Csr, offsets_of
from ise_fast.ops.shards import jaccard_pairs
from ise_fast.sharded.features import Features
from ise_fast.sharded.peers import Peers


@dataclass(frozen=True)
class OwnGraph:
    """The own rows of a symmetric graph of distances."""

    peers: Peers
    starts: list[int]  # where the rows of each process begin, and the number of all rows
    indptr: Tensor  # [n + 1] int64
    indices: Tensor  # [nnz] int32, numbers of all rows, ascending in each row
    values: Tensor  # [nnz] float32

    @property
    def first(self) -> int:
        return self.starts[self.peers.rank]


class Gatherer:
    """Puts together rows whose entries are found block by block, blocks in any order.

    Args:
        rows: how many there are.
        device: where.
    """

    def __init__(self, rows: int, device: torch.device) -> None:
        self.rows, self.device = rows, device
        self.found: dict[int, Csr] = {}

    def add(self, first: int, part: Csr, place: int = 0) -> None:
        """Entries of rows place, place + 1, ... with columns from `first` on, of a block not seen before."""
        indptr, indices, values = (tensor.to(self.device) for tensor in part)
        lengths = indptr.diff()
        if place or len(lengths) < self.rows:
            lengths = torch.cat([lengths.new_zeros(place), lengths])
            lengths = torch.cat([lengths, lengths.new_zeros(self.rows - len(lengths))])
        self.found[len(self.found)] = lengths, indices + first, values

    def finish(self) -> Csr:
        """All entries, columns ascending."""
        if not self.found:
            nothing = torch.empty(0, device=self.device)
            return torch.zeros(self.rows + 1, dtype=torch.int64, device=self.device), nothing.int(), nothing
        parts = list(self.found.values())
        every = torch.arange(self.rows, device=self.device)
        row = torch.cat([every.repeat_interleave(lengths) for lengths, _, _ in parts])
        column, value = torch.cat([indices for _, indices, _ in parts]), torch.cat([values for _, _, values in parts])
        order = column.argsort(stable=True)
        order = order[row[order].argsort(stable=True)]
        return offsets_of(torch.bincount(row, minlength=self.rows)), column[order], value[order]


def own_jaccard(features: Features, v: Csr, near: Tensor, k2: int, eps: float, max_pairs: int) -> OwnGraph:
    """Own rows of `ops.jaccard_graph`.

    Args:
        features: whose rows they are.
        v: own rows of the encoding.
        near: [n, k1] int32 neighbours of own rows: they say what is wrong where there are too many pairs.
        k2: of the encoding.
        eps: in [0, 1).
        max_pairs: the most pairs of all rows together.

    Raises:
        TooManyPairs: on all processes.
    """
    peers, starts = features.peers, features.starts
    gatherer, found = Gatherer(len(v[0]) - 1, v[0].device), 0
    crowded = False

    def meet(source: int, block: list[Tensor]) -> None:
        nonlocal found, crowded
        if crowded or len(v[0]) == 1 or len(block[0]) == 0:
            return
        other = offsets_of(block[0].long()), block[1], block[2]
        try:
            part = jaccard_pairs(v, other, same=source == peers.rank, eps=eps, max_pairs=max_pairs - found)
        except ValueError as error:
            if not str(error).startswith("max_pairs: expected at most"):
                raise
            crowded = True
            return
        found += len(part[1])
        gatherer.add(starts[source], part)

    peers.turn([v[0].diff().to(torch.int32), v[1], v[2]], meet)
    total = sum(count for (count,) in peers.numbers(found))
    if peers.any(crowded) or total > max_pairs:
        nn = peers.gather(near, features.counts)
        raise too_many_pairs(nn.long(), k2, eps, max_pairs)
    return OwnGraph(peers, starts, *peers.together(gatherer.finish))
