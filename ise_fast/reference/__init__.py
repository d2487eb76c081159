"""Every function of `ise_fast.ops`, with the same name and arguments, in readable PyTorch and NumPy on any device.

This is the oracle of the tests and the baseline of the benchmarks; nothing falls back to it. `knn` alone has fewer
arguments, no `candidates` and `beyond`. The letters are the papers'.
"""

from ise_fast.reference.dbscan import dbscan
from ise_fast.reference.groups import group_members, group_nce_loss, refresh_groups_
from ise_fast.reference.k_reciprocal import jaccard_distance, jaccard_graph, k_reciprocal_encoding
from ise_fast.reference.kmeans import kmeans, kmeans_start, kmeans_step
from ise_fast.reference.losses import cluster_nce_loss, ise_loss
from ise_fast.reference.memory import update_memory_
from ise_fast.reference.merging import merge_nearest, merge_rows
from ise_fast.reference.multi_label import cycle_positives, multi_label_loss
from ise_fast.reference.neighbors import knn, radius_graph
from ise_fast.reference.rank import rank_metrics, re_ranking
from ise_fast.reference.reliability import reliable_labels
from ise_fast.reference.soft_nce import soft_nce_loss
from ise_fast.reference.supports import interpolation_degree, nearest_centroids, support_samples

__all__ = [
    "cluster_nce_loss",
    "cycle_positives",
    "dbscan",
    "group_members",
    "group_nce_loss",
    "interpolation_degree",
    "ise_loss",
    "jaccard_distance",
    "jaccard_graph",
    "k_reciprocal_encoding",
    "kmeans",
    "kmeans_start",
    "kmeans_step",
    "knn",
    "merge_nearest",
    "merge_rows",
    "multi_label_loss",
    "nearest_centroids",
    "radius_graph",
    "rank_metrics",
    "re_ranking",
    "refresh_groups_",
    "reliable_labels",
    "soft_nce_loss",
    "support_samples",
    "update_memory_",
]
