"""What is measured: one builder of cases for each operator, and for the two ways through."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmarks.cases import evaluation, hard, head, labels, method_steps, methods, training
from benchmarks.cases.setting import Setting
from benchmarks.measure import Case

#: operator or way through -> its cases at the sizes of a setting
CASES: dict[str, Callable[[Setting], Iterator[Case]]] = {
    "knn": labels.knn,
    "radius_graph": labels.radius_graph,
    "k_reciprocal_encoding": labels.k_reciprocal_encoding,
    "jaccard_graph": labels.jaccard_graph,
    "dbscan": labels.dbscan,
    "features_to_labels": labels.features_to_labels,
    "real_like_labels": labels.real_like_labels,
    "few_columns": labels.few_columns,
    "many_neighbours": labels.many_neighbours,
    "label_stages": labels.label_stages,
    "hard_jaccard": hard.hard_jaccard,
    "nearest_centroids": head.nearest_centroids,
    "support_samples": head.support_samples,
    "cluster_nce_loss": head.cluster_nce_loss,
    "update_memory_": head.update_memory,
    "ise_loss_step": head.ise_loss_step,
    "kmeans": methods.kmeans,
    "kmeans_start": methods.kmeans_start,
    "merge_rows": methods.merge_rows,
    "cycle_positives": methods.cycle_positives,
    "method_step": method_steps.method_steps,
    "group_nce_loss": methods.group_nce_loss,
    "soft_nce_loss": methods.soft_nce_loss,
    "multi_label_loss": methods.multi_label_loss,
    "re_ranking": evaluation.re_ranking,
    "rank_metrics": evaluation.rank_metrics,
    "training_epoch": training.training_epoch,
}

__all__ = ["CASES", "Setting"]
