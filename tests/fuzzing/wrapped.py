"""Valid arguments of every function of ise_fast.ops, and which of them equal the reference to the last bit."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch

from fuzzing import arguments as raw
from fuzzing.arguments import Arguments
from ise_fast import ops
from ise_fast.types import CSRGraph


def _without(made: Arguments, *names: str) -> Arguments:
    return {key: value for key, value in made.items() if key not in names}


def _graph(made: Arguments) -> Arguments:
    """indptr, indices and values as one graph."""
    graph = CSRGraph(made["indptr"], made["indices"], made["values"])
    return {"graph": graph, **_without(made, "indptr", "indices", "values")}


def _jaccard(rng: random.Random) -> Arguments:
    x = raw.unit_rows(rng, rng.choice([4, 9, 40]), rng.choice([2, 8]))
    return {"x": x, "k1": rng.choice([1, 2, 4]), "k2": 1}


def _dbscan(rng: random.Random) -> Arguments:
    return rng.choice([_graph(raw.EXAMPLES["dbscan"](rng)), raw.EXAMPLES["dbscan_dense"](rng)])


def _kmeans_start(rng: random.Random) -> Arguments:
    x = raw.EXAMPLES["kmeans_start"](rng)["x"]
    return {"x": x, "clusters": rng.choice([1, 3]), "generator": torch.Generator().manual_seed(rng.randrange(1 << 30))}


def _merge_rows(rng: random.Random) -> Arguments:
    labels = torch.arange(9) % rng.choice([4, 9])
    return {"x": raw.unit_rows(rng, 9, 3), "labels": labels, "penalty": 0.01, "merges": rng.choice([0, 2, 8])}


def _multi_label(rng: random.Random) -> Arguments:
    made = raw.EXAMPLES["multi_label_loss"](rng)
    shape = (len(made["features"]), len(made["table"]))
    positives = CSRGraph(made["indptr"], made["indices"], torch.ones(len(made["indices"])), shape)
    return {**_without(made, "indptr", "indices", "needs_gradient"), "positives": positives}


def _soft_nce(rng: random.Random) -> Arguments:
    made = _without(raw.EXAMPLES["soft_nce_loss"](rng), "needs_gradient")
    return {**made, "smooth": 0.1 if made["smooth"] is None else made["smooth"]}


def _refresh_groups(rng: random.Random) -> Arguments:
    made = raw.EXAMPLES["refresh_groups_"](rng)
    members = ops.group_members(raw.integers(rng, 3, len(made["table"])), 3)
    return {**_without(made, "indptr", "rows"), "members": members}


def _update(rng: random.Random) -> Arguments:
    made = raw.EXAMPLES["update_memory_"](rng)
    return {**_without(made, "supports", "update"), "mode": made["update"]}


def _re_ranking(rng: random.Random) -> Arguments:
    q, g, d = rng.choice([1, 4]), rng.choice([5, 20]), rng.choice([2, 8])
    return {"query": raw.unit_rows(rng, q, d), "gallery": raw.unit_rows(rng, g, d), "k1": 3, "k2": rng.choice([1, 2])}


def _reliable(rng: random.Random) -> Arguments:
    labels = [raw.integers(rng, 3, 12) for _ in range(3)]
    return {"tight": labels[0], "normal": labels[1], "loose": labels[2], "theta": rng.choice([None, 0.3])}


def _plain(name: str, *dropped: str) -> Callable[[random.Random], Arguments]:
    """The raw operator's arguments but for those that the wrapper does not show."""
    return lambda rng: _without(raw.EXAMPLES[name](rng), *dropped)


FUNCTIONS: dict[str, Callable[[random.Random], Arguments]] = {
    "cluster_nce_loss": _plain("cluster_nce_loss", "needs_gradient"),
    "cycle_positives": _plain("cycle_positives"),
    "dbscan": _dbscan,
    "group_members": lambda rng: {"labels": raw.integers(rng, 4, rng.choice([0, 1, 9])), "groups": 4},
    "group_nce_loss": _plain("group_nce_loss", "needs_gradient"),
    "interpolation_degree": lambda rng: {"progress": rng.random(), "base": 0.25},
    "ise_loss": _plain("ise_loss", "needs_gradient", "degree_tensor"),
    "jaccard_distance": _jaccard,
    "jaccard_graph": lambda rng: {**_jaccard(rng), "eps": rng.choice([0.3, 0.5, 0.9])},
    "k_reciprocal_encoding": _jaccard,
    "kmeans": _plain("kmeans"),
    "kmeans_start": _kmeans_start,
    "kmeans_step": _plain("kmeans_step"),
    "knn": _plain("knn", "block", "width"),
    "merge_nearest": lambda rng: _graph(raw.EXAMPLES["merge_nearest"](rng)),
    "merge_rows": _merge_rows,
    "multi_label_loss": _multi_label,
    "nearest_centroids": _plain("nearest_centroids"),
    "radius_graph": _plain("radius_graph", "block", "width"),
    "rank_metrics": _plain("rank_metrics"),
    "re_ranking": _re_ranking,
    "refresh_groups_": _refresh_groups,
    "reliable_labels": _reliable,
    "soft_nce_loss": _soft_nce,
    "support_samples": _plain("support_samples"),
    "update_memory_": _update,
}

# What is read through a product of float32, and may differ from the reference in the last bits.
ROUNDED = {
    "cluster_nce_loss", "group_nce_loss", "ise_loss", "multi_label_loss", "soft_nce_loss", "support_samples",
    "update_memory_", "kmeans", "kmeans_step", "k_reciprocal_encoding", "jaccard_distance", "jaccard_graph",
    "re_ranking", "rank_metrics",
}  # fmt: skip
WRITTEN = {"refresh_groups_": "sums", "update_memory_": "centroids"}
