"""Features on any number of processes -> pseudo labels, with the bits of one process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ise_fast._checks import check_int, check_number
from ise_fast._collapse import check_max_pairs, most_pairs
from ise_fast.sharded.copies import labels_of_twins, leave_out_copies
from ise_fast.sharded.density import own_dbscan
from ise_fast.sharded.encoding import encode_own
from ise_fast.sharded.features import Features
from ise_fast.sharded.jaccard import OwnGraph, own_jaccard
from ise_fast.sharded.neighbours import own_neighbours
from ise_fast.types import DBSCANResult


class SharedGraph(NamedTuple):
    """Own rows of a graph, and for each the row of all whose label it takes; None: its own."""

    rows: OwnGraph
    twin: Tensor | None


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
        if not torch.tensor(check_number("eps", self.eps, 0), dtype=torch.float32, device="cpu") < 1:
            raise ValueError(f"eps: expected a number in [0, 1), got {self.eps}")
        check_int("min_samples", self.min_samples, 1)
        check_int("k1", self.k1, 1)
        check_int("k2", self.k2, 1, self.k1, "k1")
        check_max_pairs(self.max_pairs)


def _check_kind(features: object) -> None:
    if not isinstance(features, Features):
        raise TypeError(f"features: expected HeldRows or StoredRows, got {type(features).__name__}")


def jaccard_rows(features: Features, settings: JaccardSettings, eps: float, copies: int = 0) -> SharedGraph:
    """Own rows of `ops.jaccard_graph` at eps.

    Args:
        features: the rows.
        settings: all but eps are used.
        eps: radius.
        copies: how many stay of each crowd of equal rows; 0: all.

    Returns:
        The graph, and for each own row the one whose label it takes; None: its own.

    Raises:
        TypeError: if they are no `Features`.
        TooManyPairs, PeerError: on all processes.
    """
    _check_kind(features)
    k1 = min(settings.k1, features.rows)
    k2 = min(settings.k2, k1)
    near = own_neighbours(features, k1)
    v = encode_own(features, near, k2)
    v, twin = leave_out_copies(features, v, copies) if copies else (v, None)
    most = most_pairs(settings.max_pairs, features.rows)
    return SharedGraph(own_jaccard(features, v, near, k2, eps, most), twin)


def label_rows(features: Features, graph: SharedGraph, eps: float, min_samples: int) -> DBSCANResult:
    """DBSCAN of own rows, at the radius of the graph or a smaller one."""
    found = own_dbscan(graph.rows, eps, min_samples)
    return found if graph.twin is None else labels_of_twins(features, found, graph.twin)


def cluster(features: Features, settings: JaccardSettings) -> DBSCANResult:
    """Labels and core flags of own rows: those of `ise_fast.cluster.JaccardDBSCAN` on all rows together.

    Memory of a process: its own features, two blocks of others, 4 k1 bytes and k1 / 2 bits for each row of all, and its
    part of V' and of the graph.

    Args:
        features: `HeldRows` on processes of torch.distributed, or `StoredRows` of a file.
        settings: the same everywhere.

    Returns:
        DBSCANResult(labels [n] int64, core_mask [n] bool), on the CPU.

    Raises:
        TypeError: if they are no `Features`.
        TooManyPairs: more than max_pairs pairs.
        PeerError: another process failed, or is gone.
    """
    _check_kind(features)
    features.peers.same(**vars(settings))
    graph = jaccard_rows(features, settings, settings.eps, copies=settings.min_samples)
    labels, core = label_rows(features, graph, settings.eps, settings.min_samples)
    return DBSCANResult(labels.cpu(), core.cpu())
