"""Features on any number of processes -> pseudo labels, with the bits of one process."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ise_fast._checks import check_int, check_number
from ise_fast._collapse import check_max_pairs, most_pairs
from ise_fast.sharded.density import own_dbscan
from ise_fast.sharded.encoding import encode_own
from ise_fast.sharded.features import Features
from ise_fast.sharded.jaccard import OwnGraph, own_jaccard
from ise_fast.sharded.neighbours import own_neighbours
from ise_fast.types import DBSCANResult


@dataclass(frozen=True)
class JaccardSettings:
    """As of `ise_fast.cluster.JaccardDBSCAN`, which has the ranges.

    Raises:
        TypeError, ValueError: naming the argument.
    """

    eps: float = 0.6
    min_samples: int = 4
    k1: int = 30
    k2: int = 6
    max_pairs: int | None = None

    def __post_init__(self) -> None:
        if not torch.tensor(check_number("eps", self.eps, 0), dtype=torch.float32) < 1:
            raise ValueError(f"eps: expected a number in [0, 1), got {self.eps}")
        check_int("min_samples", self.min_samples, 1)
        check_int("k1", self.k1, 1)
        check_int("k2", self.k2, 1, self.k1, "k1")
        check_max_pairs(self.max_pairs)


def jaccard_rows(features: Features, settings: JaccardSettings, eps: float) -> OwnGraph:
    """Own rows of `ops.jaccard_graph` at eps.

    Raises:
        TooManyPairs, PeerError: on all processes.
    """
    k1 = min(settings.k1, features.rows)
    k2 = min(settings.k2, k1)
    near = own_neighbours(features, k1)
    v = encode_own(features, near, k2)
    return own_jaccard(features, v, near.cpu(), k2, eps, most_pairs(settings.max_pairs, features.rows))


def cluster(features: Features, settings: JaccardSettings) -> DBSCANResult:
    """Labels and core flags of own rows: those of `ise_fast.cluster.JaccardDBSCAN` on all rows together.

    Memory of a process: its own features, two blocks of others, 4 k1 + 2 bytes for each row of all, and its part of V'
    and of the graph.

    Args:
        features: `HeldRows` on processes of torch.distributed, or `StoredRows` of a file.
        settings: the same everywhere.

    Returns:
        DBSCANResult(labels [n] int64, core_mask [n] bool), on the CPU.

    Raises:
        TooManyPairs: more than max_pairs pairs.
        PeerError: another process failed, or is gone.
    """
    features.peers.same(**vars(settings))
    graph = jaccard_rows(features, settings, settings.eps)
    return own_dbscan(graph, settings.eps, settings.min_samples)
