"""The radius graph of own rows, block by block."""

from __future__ import annotations

from torch import Tensor

from ise_fast.ops.shards import radius_pairs
from ise_fast.sharded.features import Features
from ise_fast.sharded.jaccard import Gatherer, OwnGraph


def own_radius(features: Features, eps: float, metric: str) -> OwnGraph:
    """Own rows of `ops.radius_graph`.

    Args:
        features: the rows.
        eps: radius.
        metric: euclidean, sqeuclidean or cosine.
    """
    gatherer = Gatherer(features.own, features.home)
    for place, rows in features.pieces():
        begin = features.first + place

        def meet(first: int, block: Tensor, rows: Tensor = rows, begin: int = begin, place: int = place) -> None:
            if len(rows):
                same = first == begin and len(block) == len(rows)
                gatherer.add(first, radius_pairs(block, rows, eps=eps, metric=metric, same=same), place)

        features.turn(meet)
    return OwnGraph(features.peers, features.starts, *features.peers.together(gatherer.finish))
