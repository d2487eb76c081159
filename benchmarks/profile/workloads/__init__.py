"""The operators that are profiled: their inputs at a shape, and what the hardware must do for them at least."""

from __future__ import annotations

from benchmarks.profile.workloads import evaluation, heads, labels, methods, neighbours, shards
from benchmarks.profile.workloads.base import Call, Shape, Workload

__all__ = ["TOGETHER", "WORKLOADS", "Call", "Shape", "Workload"]

WORKLOADS: dict[str, Workload] = {
    **neighbours.WORKLOADS,
    **labels.WORKLOADS,
    **shards.WORKLOADS,
    **heads.WORKLOADS,
    **methods.WORKLOADS,
    **evaluation.WORKLOADS,
}

#: what users call as one; its time is the sum of its parts
TOGETHER: dict[str, tuple[str, ...]] = {
    "features to labels": ("knn_half", "k_reciprocal_encoding", "jaccard_graph", "dbscan"),
}
