"""DBSCAN where each process has the rows of its own points: local union-find, then minima over the processes.

The graph is symmetric to the bit, so clusters are the connected components of the core points, and a border point
belongs to the first of them among its neighbours: what the search of one process finds.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from ise_fast.ops.shards import unite_
from ise_fast.sharded.jaccard import OwnGraph
from ise_fast.types import DBSCANResult


def own_dbscan(graph: OwnGraph, eps: float, min_samples: int) -> DBSCANResult:
    """Labels and core flags of own rows: those of `ops.dbscan` on the whole graph.

    Held meanwhile: 17 bytes for each row of all, on a GPU 21.
    """
    peers, starts, first = graph.peers, graph.starts, graph.first
    counts = [end - start for start, end in pairwise(starts)]
    own, total, device = counts[peers.rank], starts[-1], graph.indptr.device
    row = torch.arange(own, dtype=torch.int32, device=device).repeat_interleave(graph.indptr.diff())
    near = graph.values <= torch.tensor(eps, dtype=torch.float32, device="cpu")

    # A diagonal that is not stored counts as self; a stored one above eps leaves self out.
    neighbours = torch.bincount(row[near], minlength=own)
    stored = torch.bincount(row[graph.indices == row + first], minlength=own)
    core = peers.together(lambda: neighbours + (stored == 0) >= min_samples)
    all_core = peers.gather(core.to(torch.uint8), counts).bool()

    reached = near & all_core[graph.indices.long()]
    edge = reached & core[row.long()]
    parent = peers.together(lambda: _united(total, row[edge] + first, graph.indices[edge]))
    everyone = torch.arange(total, dtype=torch.int32, device=device)
    while peers.size > 1:
        least = parent.clone()
        peers.least_(least)
        changed = not torch.equal(least, parent)
        unite_(parent, everyone, least)
        if not peers.any(changed):
            break

    # Roots are the smallest core point of each cluster: numbers follow their order.
    is_root = all_core & (parent == everyone)
    number = is_root.cumsum(0) - 1
    labels = torch.where(core, number[parent[first : first + own].long()], -1)
    border = reached & ~core[row.long()]
    found = torch.full((own,), total, dtype=torch.int64, device=device)
    found.scatter_reduce_(0, row[border].long(), number[parent[graph.indices[border].long()].long()], "amin")
    return DBSCANResult(torch.where(~core & (found < total), found, labels), core)


def _united(total: int, first: Tensor, second: Tensor) -> Tensor:
    parent = torch.arange(total, dtype=torch.int32, device=first.device)
    unite_(parent, first, second)
    return parent
