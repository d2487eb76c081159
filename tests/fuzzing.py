"""Arguments for the fuzzer of the operators: valid ones for each, and what may be done to them."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

import ise_fast.ops

Arguments = dict[str, Any]
OPERATORS = torch.ops.ise_fast


def operators() -> dict[str, Any]:
    """Every registered operator by name: a new one needs no line here to be fuzzed."""
    names = [name for name in torch._C._dispatch_get_all_op_names() if name.startswith("ise_fast::")]
    return {
        name.removeprefix("ise_fast::"): getattr(OPERATORS, name.removeprefix("ise_fast::")).default for name in names
    }


def _rows(rng: random.Random, n: int, d: int) -> Tensor:
    return normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(rng.randrange(1 << 30))), dim=1)


def _integers(rng: random.Random, high: int, *shape: int) -> Tensor:
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(rng.randrange(1 << 30)))


def _head(rng: random.Random) -> tuple[Tensor, Tensor, Tensor]:
    """features, centroids, labels"""
    b, clusters, d = rng.choice([1, 2, 7]), rng.choice([2, 5, 33]), rng.choice([1, 3, 40])
    return _rows(rng, b, d), _rows(rng, clusters, d), _integers(rng, clusters, b)


def _table(rng: random.Random) -> tuple[Tensor, Tensor]:
    """x, nn"""
    x = _rows(rng, rng.choice([4, 9, 40]), rng.choice([2, 8]))
    return x, OPERATORS.knn(x, rng.choice([2, 4]))[1]


def _knn(rng: random.Random) -> Arguments:
    x = _rows(rng, rng.choice([2, 5, 70]), rng.choice([1, 3, 40]))
    y = rng.choice([None, _rows(rng, 3, x.shape[1])])
    metric = rng.choice(["euclidean", "sqeuclidean", "cosine"])
    return {"x": x, "k": rng.choice([1, 2]), "y": y, "metric": metric, "block": rng.choice([0, 1, 8])}


def _radius_graph(rng: random.Random) -> Arguments:
    x = _rows(rng, rng.choice([1, 5, 70]), rng.choice([1, 3, 40]))
    metric = rng.choice(["euclidean", "sqeuclidean", "cosine"])
    return {"x": x, "eps": rng.choice([0.0, 0.5, 2.0]), "metric": metric, "block": rng.choice([0, 1, 8])}


def _encoding(rng: random.Random) -> Arguments:
    x, nn = _table(rng)
    return dict(zip(("indptr", "indices", "values"), OPERATORS.k_reciprocal_encoding(x, nn, 2), strict=True))


def _jaccard_graph(rng: random.Random) -> Arguments:
    v = _encoding(rng)
    return {**v, "eps": rng.choice([0.0, 0.5, 0.9]), "begin": rng.choice([0, 1]), "end": len(v["indptr"]) - 1}


def _dbscan(rng: random.Random) -> Arguments:
    x = _rows(rng, rng.choice([1, 5, 70]), 2)
    parts = dict(zip(("indptr", "indices", "values"), OPERATORS.radius_graph(x, 0.7), strict=True))
    return {**parts, "eps": rng.choice([0.0, 0.3]), "min_samples": rng.choice([1, 3])}


def _dbscan_dense(rng: random.Random) -> Arguments:
    x = _rows(rng, rng.choice([1, 5, 70]), 2)
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
    return {**v, "neighbours": _integers(rng, len(v["indptr"]) - 1, 5, 2).int()}


def _jaccard_pairs(rng: random.Random) -> Arguments:
    a, b, same = _encoding(rng), _encoding(rng), rng.random() < 0.5
    sides = {f"a_{k}": x for k, x in a.items()} | {f"b_{k}": x.clone() for k, x in (a if same else b).items()}
    return {**sides, "same": same, "eps": rng.choice([0.0, 0.5, 0.9]), "max_pairs": 10**6}


def _radius_pairs(rng: random.Random) -> Arguments:
    a = _radius_graph(rng)
    y, same = (a["x"].clone(), True) if rng.random() < 0.5 else (_rows(rng, 3, a["x"].shape[1]), False)
    return {"x": a["x"], "y": y, "eps": a["eps"], "metric": a["metric"], "same": same}


def _unite(rng: random.Random) -> Arguments:
    n = rng.choice([1, 9])
    return {"parent": torch.arange(n).int(), "first": _integers(rng, n, 4).int(), "second": _integers(rng, n, 4).int()}


def _nearest(rng: random.Random) -> Arguments:
    f, c, y = _head(rng)
    return {"features": f, "centroids": c, "labels": y, "k": rng.randint(1, len(c) - 1)}


def _supports(rng: random.Random) -> Arguments:
    f, c, y = _head(rng)
    return {"features": f, "centroids": c, "labels": y, "nearest": _integers(rng, len(c), len(y), 2), "degree": 0.3}


def _supports_backward(rng: random.Random) -> Arguments:
    a = _supports(rng)
    supports, norm = OPERATORS.support_samples(**a)
    return {"grad": torch.ones_like(supports), "features": a["features"], "supports": supports, "norm": norm}


def _ise_loss(rng: random.Random) -> Arguments:
    a = _nearest(rng)
    c = a["centroids"]
    numbers = {"degree": 0.3, "temperature": 0.05, "lp_temperature": 0.6, "lp_weight": rng.choice([0.0, 0.1])}
    return {**a, **numbers, "k": min(a["k"], 3), "gram": rng.choice([None, c @ c.T]), "needs_gradient": True}


def _ise_backward(rng: random.Random) -> Arguments:
    f, one = _head(rng)[0], torch.ones(())
    grads = {"grad_loss": one, "grad_contrastive": one.clone(), "grad_label_preserving": one.clone()}
    kept = {"contrastive_gradient": f.clone(), "lp_gradient": rng.choice([f.clone(), f[:0].clone()])}
    return {**grads, "features": f, **kept, "lp_weight": 0.1}


def _nce(rng: random.Random) -> Arguments:
    f, c, y = _head(rng)
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
    counts = 1 + _integers(rng, 3, len(c))
    return {
        "features": f, "sums": c, "counts": counts, "labels": y, "temperature": 0.05, "eps": 1e-6,
        "needs_gradient": True,
    }  # fmt: skip


def _refresh_groups(rng: random.Random) -> Arguments:
    _, table, _ = _head(rng)
    members = ise_fast.ops.group_members(_integers(rng, 3, len(table)), 3)
    touched = _integers(rng, 3, 2)
    sums = torch.zeros(3, table.shape[1])
    return {"sums": sums, "table": table, "indptr": members.indptr, "rows": members.rows, "touched": touched}


def _soft_nce(rng: random.Random) -> Arguments:
    f, table, y = _head(rng)
    smooth = rng.choice([None, torch.full((len(f),), 0.1)])
    return {
        "features": f, "table": table, "columns": y[:, None], "weights": torch.ones(len(f), 1), "temperature": 0.05,
        "smooth": smooth, "negatives": rng.choice([0, 1, 9]), "ranges": None, "excluded": None, "needs_gradient": True,
    }  # fmt: skip


def _kmeans(rng: random.Random) -> Arguments:
    x = _rows(rng, rng.choice([3, 20]), rng.choice([1, 5]))
    return {"x": x, "centres": x[: rng.choice([1, 3])].clone()}


def _merge_nearest(rng: random.Random) -> Arguments:
    names = ("indptr", "indices", "values")
    graph = dict(zip(names, OPERATORS.radius_graph(_rows(rng, 9, 3), 1.0, "sqeuclidean"), strict=True))
    return {**graph, "labels": torch.arange(9) % rng.choice([4, 9]), "penalty": 0.01, "merges": rng.choice([0, 2, 99])}


def _multi_label(rng: random.Random) -> Arguments:
    f, table, _ = _head(rng)
    table = torch.cat([table, table])
    return {
        "features": f, "table": table, "indptr": torch.arange(len(f) + 1), "indices": torch.zeros(len(f)).int(),
        "delta": 5.0, "hard_share": 0.5, "needs_gradient": True,
    }  # fmt: skip


def _cycle_positives(rng: random.Random) -> Arguments:
    return {"table": _rows(rng, 12, 3), "rows": _integers(rng, 12, 4), "threshold": 0.6, "least": rng.choice([1, 10])}


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


def _guess(rng: random.Random, name: str, kind: str) -> Any:
    """For an operator without an example: something of the right type."""
    if kind == "Tensor":
        if any(word in name for word in ("label", "ids", "cams", "indptr", "indices", "rows", "columns", "touched")):
            return _integers(rng, 3, *rng.choice([(4,), (4, 2), (5,)]))
        return _rows(rng, rng.choice([3, 4]), 4)
    return {"int": 1, "float": 0.5, "str": "x", "bool": True}.get(kind)


def example(name: str, rng: random.Random) -> Arguments:
    """Valid arguments of an operator, or guessed ones if nobody has written any."""
    if name in EXAMPLES:
        return EXAMPLES[name](rng)
    schema = operators()[name]._schema.arguments
    return {a.name: _guess(rng, a.name, str(a.type).removeprefix("Optional[").rstrip("]")) for a in schema}


HUGE = [2**63 - 1, -(2**63), 2**62, 2**31, 2**31 - 1, -1, 0, 1, 10**9]
FLOATS = [float("nan"), float("inf"), -float("inf"), -1.0, -0.0, 0.0, 1e-45, 1e-320, 1e-39, 1e38, 1e300, 1.0, 2.0]
DTYPES = [torch.float32, torch.float64, torch.float16, torch.int64, torch.int32, torch.bool, torch.complex64]


def _planted(x: Tensor, rng: random.Random, value: Any) -> Tensor:
    x = x.clone(memory_format=torch.contiguous_format)
    if x.numel():
        x.view(-1)[rng.randrange(x.numel())] = value
    return x


def _freed(x: Tensor) -> Tensor:
    x = x.clone()
    x.untyped_storage().resize_(0)
    return x


def _shape(x: Tensor, rng: random.Random) -> Tensor:
    changes = [x[None], x.flatten(), x.new_zeros(0), x.new_zeros(()), x.new_ones(1), torch.cat([x[None], x[None]])]
    if x.dim():
        changes += [x[:0], x[:-1], torch.cat([x, x]), x[..., :0], x[..., :1], x.transpose(0, -1)]
    return rng.choice(changes)


def _strided(x: Tensor, rng: random.Random) -> Tensor:
    """The same numbers, otherwise stored."""
    if not x.dim():
        return x
    spread = torch.stack([x, x], -1)[..., 0]
    return rng.choice([spread, x.transpose(0, -1).contiguous().transpose(0, -1), torch.cat([x, x])[len(x) :]])


def mutate_tensor(x: Tensor, kind: str, rng: random.Random) -> Tensor:
    """One change of a tensor; a new tensor."""
    if kind == "shape":
        return _shape(x, rng)
    if kind == "dtype":
        return x.to(rng.choice(DTYPES))
    if kind == "strides":
        return _strided(x, rng)
    if kind == "expanded" and not x.is_neg():  # of both together torch refuses to take the sign away
        return x[:1].expand(x.shape) if x.dim() and len(x) else x
    if kind == "value" and x.is_floating_point():
        numbers = [float("nan"), float("inf"), -1.0, 0.0, 1e-45, 1e-30, 3e38, -3e38, 1e19]
        return _planted(x, rng, rng.choice(numbers))
    if kind == "value":
        return _planted(x, rng, rng.choice(HUGE) if x.dtype == torch.int64 else rng.choice([-1, 0, 1, 2**31 - 1]))
    if kind == "scale" and x.is_floating_point():
        return x * rng.choice([0.0, 1e-45, 1e-38, 1e-20, 1e10, 1e19, 1e30, 3e38])
    if kind == "freed":
        return _freed(x)
    if kind == "negative" and x.is_floating_point() and 0 not in x.stride():
        return torch._neg_view(-x)
    return x


KINDS = ("shape", "dtype", "strides", "expanded", "value", "value", "scale", "freed", "negative", "foreign")


def mutate(arguments: Arguments, rng: random.Random) -> tuple[Arguments, bool]:
    """One argument changed, and whether torch's dispatcher, not the operator, has to refuse it."""
    name = rng.choice(list(arguments))
    value, kind = arguments[name], rng.choice(KINDS)
    foreign = False
    if isinstance(value, Tensor):
        strided = value.device.type == "cpu" and value.layout is torch.strided
        if not strided or (value.numel() and not value.untyped_storage().nbytes()):
            pass  # freed, or of another kind: even torch may not touch it any more
        elif kind == "foreign":
            foreign = True
            value = rng.choice([None, "text", value.to("meta"), value.to_sparse() if value.dim() else value.to("meta")])
        else:
            value = mutate_tensor(value, kind, rng)
    elif isinstance(value, bool) or value is None:
        pass
    elif isinstance(value, int):
        value = rng.choice(HUGE)
    elif isinstance(value, float):
        value = rng.choice(FLOATS)
    elif isinstance(value, str):
        value = rng.choice(["", "hamming", "x" * 1000])
    return {**arguments, name: value}, foreign
