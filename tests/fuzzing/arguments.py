"""Valid arguments of every operator, drawn at random: what the fuzzer starts from."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

import ise_fast.ops

Arguments = dict[str, Any]
OPERATORS = torch.ops.ise_fast


@functools.cache  # torch has thousands, and a case asks
def operators() -> dict[str, Any]:
    """Every registered operator by name: a new one needs no line here to be fuzzed."""
    names = [name for name in torch._C._dispatch_get_all_op_names() if name.startswith("ise_fast::")]
    return {
        name.removeprefix("ise_fast::"): getattr(OPERATORS, name.removeprefix("ise_fast::")).default for name in names
    }


def unit_rows(rng: random.Random, n: int, d: int) -> Tensor:
    return normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(rng.randrange(1 << 30))), dim=1)


def integers(rng: random.Random, high: int, *shape: int) -> Tensor:
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(rng.randrange(1 << 30)))


def _head(rng: random.Random) -> tuple[Tensor, Tensor, Tensor]:
    """features, centroids, labels"""
    b, clusters, d = rng.choice([1, 2, 7]), rng.choice([2, 5, 33]), rng.choice([1, 3, 40])
    return unit_rows(rng, b, d), unit_rows(rng, clusters, d), integers(rng, clusters, b)


def _table(rng: random.Random) -> tuple[Tensor, Tensor]:
    """x, nn"""
    x = unit_rows(rng, rng.choice([4, 9, 40]), rng.choice([2, 8]))
    return x, OPERATORS.knn(x, rng.choice([2, 4]))[1]


def _knn(rng: random.Random) -> Arguments:
    x = unit_rows(rng, rng.choice([2, 5, 70]), rng.choice([1, 3, 40]))
    y = rng.choice([None, unit_rows(rng, 3, x.shape[1])])
    metric = rng.choice(["euclidean", "sqeuclidean", "cosine"])
    return {"x": x, "k": rng.choice([1, 2]), "y": y, "metric": metric, "block": rng.choice([0, 1, 8]), "width": 0}


def _radius_graph(rng: random.Random) -> Arguments:
    x = unit_rows(rng, rng.choice([1, 5, 70]), rng.choice([1, 3, 40]))
    metric = rng.choice(["euclidean", "sqeuclidean", "cosine"])
    return {"x": x, "eps": rng.choice([0.0, 0.5, 2.0]), "metric": metric, "block": rng.choice([0, 1, 8]), "width": 0}


def _encoding(rng: random.Random) -> Arguments:
    x, nn = _table(rng)
    return dict(zip(("indptr", "indices", "values"), OPERATORS.k_reciprocal_encoding(x, nn, 2), strict=True))


def _jaccard_graph(rng: random.Random) -> Arguments:
    v = _encoding(rng)
    part = {"begin": rng.choice([0, 1]), "end": len(v["indptr"]) - 1}
    return {**v, "eps": rng.choice([0.0, 0.5, 0.9]), **part, "max_pairs": 2**40}


def _dbscan(rng: random.Random) -> Arguments:
    x = unit_rows(rng, rng.choice([1, 5, 70]), 2)
    parts = dict(zip(("indptr", "indices", "values"), OPERATORS.radius_graph(x, 0.7), strict=True))
    return {**parts, "eps": rng.choice([0.0, 0.3]), "min_samples": rng.choice([1, 3])}


def _dbscan_dense(rng: random.Random) -> Arguments:
    x = unit_rows(rng, rng.choice([1, 5, 70]), 2)
    return {"graph": (x[:, None] - x).norm(dim=2), "eps": rng.choice([0.0, 0.3]), "min_samples": rng.choice([1, 3])}


def _pattern(rng: random.Random) -> Arguments:
    x, nn = _table(rng)
    k = nn.shape[1]
    pattern = {"indptr": torch.arange(0, nn.numel() + 1, k), "indices": nn.flatten().int()}
    return {"x": x, "y": x.clone(), **pattern, "kind": rng.choice(["dot", "sqeuclidean"])}


def _softmax(rng: random.Random) -> Arguments:
    a = _pattern(rng)
    return {"product": OPERATORS.pattern_products(**{**a, "kind": "dot"}), "indptr": a["indptr"]}


def _bits(rng: random.Random) -> Arguments:
    nn = _table(rng)[1].int()
    return {"nn": nn, "begin": rng.choice([0, 1]), "end": len(nn), "width": rng.choice([1, nn.shape[1]])}


def _expanded(rng: random.Random) -> Arguments:
    a = _bits(rng)
    return {"nn": a["nn"], "bits": OPERATORS.reciprocal_bits(**{**a, "begin": 0}), "width": a["width"], "begin": 0,
            "end": rng.choice([0, len(a["nn"])])}  # fmt: skip


def _average(rng: random.Random) -> Arguments:
    v = _encoding(rng)
    return {**v, "neighbours": integers(rng, len(v["indptr"]) - 1, 5, 2).int()}


def _jaccard_pairs(rng: random.Random) -> Arguments:
    a, b, same = _encoding(rng), _encoding(rng), rng.random() < 0.5
    sides = {f"a_{k}": x for k, x in a.items()} | {f"b_{k}": x.clone() for k, x in (a if same else b).items()}
    return {**sides, "same": same, "eps": rng.choice([0.0, 0.5, 0.9]), "max_pairs": 10**6}


def _radius_pairs(rng: random.Random) -> Arguments:
    a = _radius_graph(rng)
    y, same = (a["x"].clone(), True) if rng.random() < 0.5 else (unit_rows(rng, 3, a["x"].shape[1]), False)
    return {**a, "y": y, "same": same}


def _unite(rng: random.Random) -> Arguments:
    n = rng.choice([1, 9])
    return {"parent": torch.arange(n).int(), "first": integers(rng, n, 4).int(), "second": integers(rng, n, 4).int()}


def _nearest(rng: random.Random) -> Arguments:
    f, c, y = _head(rng)
    return {"features": f, "centroids": c, "labels": y, "k": rng.randint(1, len(c) - 1)}


def _supports(rng: random.Random) -> Arguments:
    f, c, y = _head(rng)
    return {"features": f, "centroids": c, "labels": y, "nearest": integers(rng, len(c), len(y), 2), "degree": 0.3}


def _supports_backward(rng: random.Random) -> Arguments:
    a = _supports(rng)
    supports, norm = OPERATORS.support_samples(**a)
    return {"grad": torch.ones_like(supports), "features": a["features"], "supports": supports, "norm": norm}


def _mixed(rng: random.Random, x: Tensor) -> Tensor:
    """Of a dtype of mixed precision."""
    return x.to(rng.choice([torch.float32, torch.float16, torch.bfloat16]))


def _ise_loss(rng: random.Random) -> Arguments:
    a = _nearest(rng)
    c = _mixed(rng, a["centroids"])
    numbers = {"degree": 0.3, "temperature": 0.05, "lp_temperature": 0.6, "lp_weight": rng.choice([0.0, 0.1])}
    kept = {
        "gram": rng.choice([None, c.float() @ c.float().T]),
        "degree_tensor": rng.choice([None, torch.tensor(0.3).double()]),
    }
    a = {**a, "features": _mixed(rng, a["features"]), "centroids": c}
    return {**a, **numbers, **kept, "k": min(a["k"], 3), "needs_gradient": True}


def _ise_backward(rng: random.Random) -> Arguments:
    f, one = _head(rng)[0], torch.ones(())
    grads = {"grad_loss": one, "grad_contrastive": one.clone(), "grad_label_preserving": one.clone()}
    kept = {"contrastive_gradient": f.clone(), "lp_gradient": rng.choice([f.clone(), f[:0].clone()])}
    return {**grads, "features": _mixed(rng, f), **kept, "lp_weight": 0.1}


def _nce(rng: random.Random) -> Arguments:
    f, c, y = _head(rng)
    f, c = _mixed(rng, f), _mixed(rng, c)
    return {"features": f, "labels": y, "centroids": c, "temperature": 0.05, "needs_gradient": True}


def _backward(rng: random.Random) -> Arguments:
    f = _head(rng)[0]
    return {"grad": torch.ones(()), "features": f, "gradient": f.clone()}


def _update(rng: random.Random) -> Arguments:
    f, c, y = _head(rng)
    supports = rng.choice([None, f[:, None].clone()])
    update = rng.choice(["hard", "momentum"])
    return {"centroids": c, "rows": f, "labels": y, "supports": supports, "momentum": 0.2, "update": update}


def _refresh_gram(rng: random.Random) -> Arguments:
    _, c, y = _head(rng)
    return {"gram": torch.zeros(len(c), len(c)), "centroids": c, "labels": rng.choice([None, y])}


def _groups(rng: random.Random) -> Arguments:
    f, c, y = _head(rng)
    counts = 1 + integers(rng, 3, len(c))
    return {
        "features": f, "sums": c, "counts": counts, "labels": y, "temperature": 0.05, "eps": 1e-6,
        "needs_gradient": True,
    }  # fmt: skip


def _refresh_groups(rng: random.Random) -> Arguments:
    _, table, _ = _head(rng)
    members = ise_fast.ops.group_members(integers(rng, 3, len(table)), 3)
    touched = integers(rng, 3, 2)
    sums = torch.zeros(3, table.shape[1])
    return {"sums": sums, "table": table, "indptr": members.indptr, "rows": members.rows, "touched": touched}


def _soft_nce(rng: random.Random) -> Arguments:
    f, table, y = _head(rng)
    smooth = rng.choice([None, torch.full((len(f),), 0.1)])
    ranges = rng.choice([None, torch.tensor([[0, len(table)]]).repeat(len(f), 1)])
    excluded = rng.choice([None, ((y + 1) % len(table))[:, None]])
    return {
        "features": f, "table": table, "columns": y[:, None].clone(), "weights": torch.ones(len(f), 1),
        "temperature": 0.05, "smooth": smooth, "negatives": rng.choice([0, 1, 9]), "ranges": ranges,
        "excluded": excluded, "needs_gradient": True,
    }  # fmt: skip


def _kmeans(rng: random.Random) -> Arguments:
    x = unit_rows(rng, rng.choice([3, 20]), rng.choice([1, 5]))
    return {"x": x, "centres": x[: rng.choice([1, 3])].clone()}


def _merge_nearest(rng: random.Random) -> Arguments:
    names = ("indptr", "indices", "values")
    graph = dict(zip(names, OPERATORS.radius_graph(unit_rows(rng, 9, 3), 1.0, "sqeuclidean"), strict=True))
    return {**graph, "labels": torch.arange(9) % rng.choice([4, 9]), "penalty": 0.01, "merges": rng.choice([0, 2, 99])}


def _multi_label(rng: random.Random) -> Arguments:
    f, table, _ = _head(rng)
    table = torch.cat([table, table])
    return {
        "features": f, "table": table, "indptr": torch.arange(len(f) + 1), "indices": torch.zeros(len(f)).int(),
        "delta": 5.0, "hard_share": 0.5, "needs_gradient": True,
    }  # fmt: skip


def _cycle_positives(rng: random.Random) -> Arguments:
    return {
        "table": unit_rows(rng, 12, 3),
        "rows": integers(rng, 12, 4),
        "threshold": 0.6,
        "least": rng.choice([1, 10]),
    }


def _rank_metrics(rng: random.Random) -> Arguments:
    q, g = rng.choice([1, 4]), rng.choice([3, 20])
    distance = torch.rand(q, g, generator=torch.Generator().manual_seed(rng.randrange(1 << 30)))
    ids = {"query_ids": torch.arange(q) % 3, "gallery_ids": torch.arange(g) % 3}
    cams = {"query_cams": None, "gallery_cams": None}
    if rng.random() < 0.5:
        cams = {"query_cams": torch.zeros(q).long(), "gallery_cams": torch.ones(g).long()}
    return {"distance": distance, **ids, **cams, "max_rank": rng.choice([1, 50])}


def _re_ranking(rng: random.Random) -> Arguments:
    x, nn = _table(rng)
    return {"x": x, "nn": nn, "queries": rng.choice([0, 1, 3]), "k2": 1, "lambda_value": 0.3, "block": 0}


EXAMPLES: dict[str, Callable[[random.Random], Arguments]] = {
    "knn": _knn,
    "radius_graph": _radius_graph,
    "k_reciprocal_encoding": lambda rng: {**dict(zip(("x", "nn"), _table(rng), strict=True)), "k2": rng.choice([1, 2])},
    "jaccard_distance": _encoding,
    "jaccard_graph": _jaccard_graph,
    "dbscan": _dbscan,
    "dbscan_dense": _dbscan_dense,
    "pattern_products": _pattern,
    "softmax_rows": _softmax,
    "reciprocal_bits": _bits,
    "expanded_sets": _expanded,
    "average_rows": _average,
    "jaccard_pairs": _jaccard_pairs,
    "radius_pairs": _radius_pairs,
    "unite_": _unite,
    "nearest_centroids": _nearest,
    "support_samples": _supports,
    "support_samples_backward": _supports_backward,
    "ise_loss": _ise_loss,
    "ise_loss_backward": _ise_backward,
    "cluster_nce_loss": _nce,
    "cluster_nce_loss_backward": _backward,
    "update_memory_": _update,
    "refresh_gram_": _refresh_gram,
    "group_nce_loss": _groups,
    "refresh_groups_": _refresh_groups,
    "soft_nce_loss": _soft_nce,
    "loss_backward": lambda rng: {**_backward(rng), "loss": "group_nce_loss"},
    "kmeans_start": lambda rng: {"x": _kmeans(rng)["x"], "draws": torch.linspace(0, 0.9, 2).double()},
    "kmeans_step": _kmeans,
    "kmeans": lambda rng: {**_kmeans(rng), "iterations": rng.choice([1, 5])},
    "merge_nearest": _merge_nearest,
    "cycle_positives": _cycle_positives,
    "multi_label_loss": _multi_label,
    "rank_metrics": _rank_metrics,
    "re_ranking": _re_ranking,
}


def example(name: str, rng: random.Random) -> Arguments:
    """Valid arguments of a registered operator."""
    return EXAMPLES[name](rng)
