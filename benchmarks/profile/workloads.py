"""The operators that are profiled: their inputs at a shape, and what the hardware must do for them at least."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Call = Callable[[Any], Any]  # of torch.ops.ise_fast_ptx
Shape = dict[str, int]

NEIGHBOURS, EXPANDED, EPS = 30, 6, 0.6  # k1, k2 and the distance of the pseudo labels
SUPPORTS = 1  # k of the ISE head


@dataclass(frozen=True)
class Workload:
    """An operator and how it is called.

    Args:
        prepare: makes the inputs of a shape and gives the call; for a dry run they need no values.
        small: the shape that the budgets hold; every dimension is doubled for its growth.
        published: shapes of which times are predicted.
        flops: of the matrix products that the problem needs at least, on tensor cores.
        bytes: that must be read or written at least.
        dry: launches and products do not depend on results, so they can be counted at the published shapes.
    """

    prepare: Callable[[Shape, bool], Call]
    small: Shape
    published: tuple[Shape, ...]
    flops: Callable[[Shape], float]
    bytes: Callable[[Shape], float]
    dry: bool = False


def _rows(n: int, d: int, seed: int = 0, dry: bool = False) -> Tensor:
    if dry:
        return torch.empty(n, d)
    rows = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(rows, dim=1)


def clustered(n: int, d: int, dry: bool = False) -> Tensor:
    """Unit rows around n / 16 centres, as features of a network that has learnt something."""
    if dry:
        return torch.empty(n, d)
    centres = _rows(max(n // 16, 1), d, 1)
    return torch.nn.functional.normalize(centres[torch.arange(n) % len(centres)] + 0.7 * _rows(n, d, 2), dim=1)


def _neighbours(shape: Shape) -> tuple[Tensor, Tensor]:
    x = clustered(shape["N"], shape["d"])
    return x, torch.ops.ise_fast.knn(x, NEIGHBOURS, None, "cosine", 0)[1]


def _encoding(shape: Shape) -> tuple[Tensor, Tensor, Tensor]:
    encoding: tuple[Tensor, Tensor, Tensor] = torch.ops.ise_fast.k_reciprocal_encoding(*_neighbours(shape), EXPANDED)
    return encoding


def _knn(shape: Shape, dry: bool) -> Call:
    x = clustered(shape["N"], shape["d"], dry)
    return lambda ops: ops.knn(x, NEIGHBOURS, None, "cosine", 0)


def _radius(shape: Shape, dry: bool) -> Call:
    x = clustered(shape["N"], shape["d"])
    return lambda ops: ops.radius_graph(x, 0.6, "cosine", 0)


def _encode(shape: Shape, dry: bool) -> Call:
    x, nn = _neighbours(shape)
    return lambda ops: ops.k_reciprocal_encoding(x, nn, EXPANDED)


def _jaccard(shape: Shape, dry: bool) -> Call:
    v = _encoding(shape)
    return lambda ops: ops.jaccard_graph(*v, EPS, 0, shape["N"])


def _dbscan(shape: Shape, dry: bool) -> Call:
    graph = torch.ops.ise_fast.jaccard_graph(*_encoding(shape), EPS, 0, shape["N"])
    return lambda ops: ops.dbscan(*graph, EPS, 4)


def _rank(shape: Shape, dry: bool) -> Call:
    queries, gallery = shape["Q"], shape["G"]
    generator = torch.Generator().manual_seed(0)
    distance = torch.rand(queries, gallery, generator=generator)
    ids = [torch.randint(0, 20, (n,), generator=generator) for n in (queries, gallery)]
    cameras = [torch.randint(0, 6, (n,), generator=generator) for n in (queries, gallery)]
    return lambda ops: ops.rank_metrics(distance, *ids, *cameras, 50)


def _re_rank(shape: Shape, dry: bool) -> Call:
    x = clustered(shape["N"], shape["d"])
    nn = torch.ops.ise_fast.knn(x, 21)[1]
    return lambda ops: ops.re_ranking(x, nn, shape["N"] // 8, EXPANDED, 0.3, 0)


def _batch(shape: Shape, dry: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Features of 16 images a label, their labels, and centroids."""
    rows, clusters, d = shape["B"], shape["K"], shape["d"]
    centroids = _rows(clusters, d, 1, dry)
    labels = torch.arange(rows) // 16 * 7 % clusters
    if dry:
        return torch.empty(rows, d), labels, centroids
    noise = 0.5 * _rows(rows, d, 2)
    return torch.nn.functional.normalize(centroids[labels] + noise, dim=1), labels, centroids


def _head_step(with_gram: bool) -> Callable[[Shape, bool], Call]:
    """Loss with gradient, backward pass, memory update and, with a Gram matrix, the rows of it that changed."""

    def prepare(shape: Shape, dry: bool) -> Call:
        features, labels, centroids = _batch(shape, dry)
        gram = None
        if with_gram:
            gram = torch.empty(len(centroids), len(centroids)) if dry else centroids @ centroids.T
        one = torch.ones(())

        def call(ops: Any) -> Any:
            out = ops.ise_loss(features, labels, centroids, 0.25, SUPPORTS, 0.05, 0.6, 0.1, gram, True)
            gradient = ops.ise_loss_backward(one, one, one, features, *out[4:], 0.1)
            ops.update_memory_(centroids, features, labels, out[3], 0.1, "hard")
            if gram is not None:
                ops.refresh_gram_(gram, centroids, labels)
            return out, gradient

        return call

    return prepare


def _cluster_nce(shape: Shape, dry: bool) -> Call:
    features, labels, centroids = _batch(shape, dry)

    def call(ops: Any) -> Any:
        loss, gradient = ops.cluster_nce_loss(features, labels, centroids, 0.05, True)
        return loss, ops.cluster_nce_loss_backward(torch.ones(()), features, gradient)

    return call


def _nearest(shape: Shape, dry: bool) -> Call:
    features, labels, centroids = _batch(shape, dry)
    return lambda ops: ops.nearest_centroids(features, centroids, labels, SUPPORTS)


def _pairs(shape: Shape) -> float:
    return 2.0 * shape["N"] ** 2 * shape["d"]


def _head(products: float) -> Callable[[Shape], float]:
    return lambda shape: products * 2.0 * shape["B"] * shape["K"] * shape["d"]


def _head_bytes(shape: Shape) -> float:
    """Float16 centroids and features, read once for each of the two products."""
    return 2.0 * 2 * (shape["K"] + shape["B"]) * shape["d"]


def _none(shape: Shape) -> float:
    return 0.0


def _images(*sizes: int, d: int = 2048) -> tuple[Shape, ...]:
    return tuple({"N": n, "d": d} for n in sizes)


def _heads(*sizes: tuple[int, int]) -> tuple[Shape, ...]:
    return tuple({"B": b, "K": k, "d": 2048} for b, k in sizes)


_SETS = _images(12_936, 32_621, 1_000_000)
_ROWS: Shape = {"N": 192, "d": 32}
_HEAD: Shape = {"B": 32, "K": 64, "d": 64}
_VALUES = 26  # entries in a row of V', measured on features like these


WORKLOADS: dict[str, Workload] = {
    "knn": Workload(_knn, _ROWS, _SETS, _pairs, lambda s: s["N"] * (4.0 * s["d"] + 12 * NEIGHBOURS), dry=True),
    "radius_graph": Workload(_radius, _ROWS, _SETS[:2], _pairs, lambda s: 4.0 * s["N"] * s["d"]),
    "k_reciprocal_encoding": Workload(
        _encode, _ROWS, _SETS, _none, lambda s: s["N"] * (4.0 * s["d"] + 8 * NEIGHBOURS + 8 * _VALUES)
    ),
    "jaccard_graph": Workload(_jaccard, _ROWS, _SETS, _none, lambda s: s["N"] * 8.0 * (_VALUES + 18)),
    "dbscan": Workload(_dbscan, _ROWS, _SETS, _none, lambda s: s["N"] * (8.0 * 18 + 9)),
    "rank_metrics": Workload(
        _rank, {"Q": 16, "G": 512}, ({"Q": 3_368, "G": 19_732},), _none, lambda s: 4.0 * s["Q"] * s["G"]
    ),
    "re_ranking": Workload(_re_rank, _ROWS, _images(23_100), _none, lambda s: 4.0 * s["N"] * (s["d"] + s["N"] / 8)),
    "nearest_centroids": Workload(_nearest, _HEAD, _heads((256, 3_000)), _head(1), _head_bytes, dry=True),
    "ise_head_gram": Workload(_head_step(True), _HEAD, _heads((256, 3_000)), _head(2.06), _head_bytes, dry=True),
    "ise_head": Workload(
        _head_step(False), _HEAD, _heads((4_096, 20_000), (256, 1_000_000)), _head(2.06), _head_bytes, dry=True
    ),
    "cluster_nce_loss": Workload(_cluster_nce, _HEAD, _heads((256, 3_000)), _head(2), _head_bytes, dry=True),
}
