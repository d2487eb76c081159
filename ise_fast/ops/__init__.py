"""The operators: torch tensors in and out, CPU or CUDA, compiled."""

import ise_fast.ops.shards  # noqa: F401 - fake rules of internal operators
from ise_fast.ops.dbscan import dbscan
from ise_fast.ops.groups import group_members, group_nce_loss, refresh_groups_
from ise_fast.ops.jaccard import jaccard_distance, jaccard_graph, k_reciprocal_encoding
from ise_fast.ops.kmeans import kmeans, kmeans_start, kmeans_step
from ise_fast.ops.losses import cluster_nce_loss, ise_loss
from ise_fast.ops.memory import update_memory_
from ise_fast.ops.merging import merge_nearest, merge_rows
from ise_fast.ops.multi_label import cycle_positives, multi_label_loss
from ise_fast.ops.neighbors import knn, radius_graph
from ise_fast.ops.rank import rank_metrics, re_ranking
from ise_fast.ops.reliability import reliable_labels
from ise_fast.ops.soft_nce import soft_nce_loss
from ise_fast.ops.supports import nearest_centroids, support_samples
from ise_fast.reference import interpolation_degree

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


def __dir__() -> list[str]:  # for tab completion: no modules, no parts
    return sorted(__all__)
