"""Clustering by many processes, none of which holds all features; or of a file larger than memory. docs/scale.md."""

from ise_fast.sharded.features import Features, HeldRows, StoredRows
from ise_fast.sharded.labels import JaccardSettings, cluster, jaccard_rows
from ise_fast.sharded.peers import PeerError, Peers

__all__ = ["Features", "HeldRows", "JaccardSettings", "PeerError", "Peers", "StoredRows", "cluster", "jaccard_rows"]
