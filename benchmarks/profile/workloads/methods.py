"""Operators of other methods than ISE: their losses, k-means, merging of clusters, multi-labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.profile.workloads.base import IMAGES, Call, Shape, Workload, generator, images, no_products, unit_rows
from benchmarks.profile.workloads.heads import SMALL, TEMPERATURE, batch, head_bytes, heads, products
from benchmarks.profile.workloads.neighbours import RADIUS

HARDEST = 50  # negatives that the hard variant of the soft loss keeps
HARD_SHARE, DELTA = 0.01, 5.0  # of the multi-label loss
MERGED = 20  # a step of bottom-up clustering joins one of so many rows


def _group_nce(shape: Shape, dry: bool) -> Call:
    """Loss against groups of a table of images, its backward pass, and the new sums of the groups of the batch."""
    features, labels, sums = batch(shape, dry)
    table = unit_rows(2 * shape["K"], shape["d"], 4, dry)
    order = torch.arange(len(table))
    indptr, counts = torch.arange(shape["K"] + 1) * 2, torch.full((shape["K"],), 2)

    def call(ops: Any) -> Any:
        loss, gradient = ops.group_nce_loss(features, sums, counts, labels, TEMPERATURE, 1e-6, True)
        gradient = ops.loss_backward(torch.ones(()), features, gradient, "group_nce_loss")
        ops.refresh_groups_(sums, table, indptr, order, labels)
        return loss, gradient

    return call


def _soft_nce(hardest: int) -> Callable[[Shape, bool], Call]:
    """Softened targets: the own row of the table and two others."""

    def prepare(shape: Shape, dry: bool) -> Call:
        features, labels, table = batch(shape, dry)
        columns = torch.stack([labels, (labels + 1) % shape["K"], (labels + 2) % shape["K"]], 1)
        weights = torch.tensor([0.8, 0.1, 0.1]).expand(len(labels), 3).contiguous()
        rest = (TEMPERATURE, None, hardest, None, None, True)
        return lambda ops: ops.soft_nce_loss(features, table, columns, weights, *rest)

    return prepare


def _centres(shape: Shape, dry: bool) -> tuple[Tensor, Tensor]:
    """Rows around K centres, and one row of each cluster, so that no centre loses all its rows."""
    n, k, d = shape["N"], shape["K"], shape["d"]
    if dry:
        return torch.empty(n, d), torch.empty(k, d)
    x = unit_rows(k, d, 1)[torch.arange(n) % k] + 0.3 * unit_rows(n, d, 2)
    return x, x[:k].clone()


def _kmeans_step(shape: Shape, dry: bool) -> Call:
    x, centres = _centres(shape, dry)
    return lambda ops: ops.kmeans_step(x, centres)


def _kmeans(shape: Shape, dry: bool) -> Call:
    """The choice of the first centres, and one iteration."""
    x, centres = _centres(shape, dry)
    draws = torch.rand(shape["K"], dtype=torch.float64, generator=generator(0))
    return lambda ops: (ops.kmeans_start(x, draws), ops.kmeans(x, centres, 1))


def _merge(shape: Shape, dry: bool) -> Call:
    n = shape["N"]
    graph = torch.ops.ise_fast.radius_graph(images(n, 128), RADIUS, "cosine", 0)
    return lambda ops: ops.merge_nearest(*graph, torch.arange(n), 0.0, n // MERGED)


def _cycles(shape: Shape, dry: bool) -> Call:
    table = images(shape["K"], shape["d"])
    rows = torch.arange(shape["B"]) * (shape["K"] // shape["B"])
    return lambda ops: ops.cycle_positives(table, rows, 0.5, 10)


def _multi_label(shape: Shape, dry: bool) -> Call:
    features, labels, table = batch(shape, dry)
    positives = torch.stack([labels, (labels + 1) % shape["K"]], 1).sort(1).values
    indptr = torch.arange(shape["B"] + 1) * 2
    rest = (indptr, positives.flatten().int(), DELTA, HARD_SHARE, True)
    return lambda ops: ops.multi_label_loss(features, table, *rest)


_TABLE = heads((256, 13_000))
_LLOYD: Shape = {"N": 256, "K": 16, "d": 64}
_PRODUCTS = ("1", "B", "K", "B*K", "B*d", "K*d", "B*K*d")


def _lloyd_bytes(shape: Shape) -> float:
    return 4.0 * shape["d"] * (shape["N"] + 2 * shape["K"])


def _lloyd_flops(shape: Shape) -> float:
    return 2.0 * shape["N"] * shape["K"] * shape["d"]


_CLUSTERED = ({"N": 12_936, "K": 700, "d": 2048}, {"N": 32_621, "K": 1_000, "d": 2048})
_CENTRE_TERMS = ("1", "N", "K", "N*K", "N*d", "K*d", "N*log N", "K*log N")

WORKLOADS = {
    "group_nce_loss": Workload(_group_nce, SMALL, _TABLE, products(2), head_bytes, dry=True),
    "soft_nce_loss": Workload(_soft_nce(0), SMALL, _TABLE, products(2), head_bytes, dry=True, terms=_PRODUCTS),
    "soft_nce_loss_hard": Workload(
        _soft_nce(HARDEST),
        {"B": 16, "K": 256, "d": 64},
        _TABLE,
        products(1),
        head_bytes,
        dry=True,
        terms=_PRODUCTS,
    ),
    "kmeans_step": Workload(
        _kmeans_step, _LLOYD, _CLUSTERED, _lloyd_flops, _lloyd_bytes, dry=True, terms=_CENTRE_TERMS
    ),
    "kmeans": Workload(
        _kmeans,
        _LLOYD,
        _CLUSTERED,
        lambda s: 3 * _lloyd_flops(s),
        lambda s: 3 * _lloyd_bytes(s),
        terms=(*_CENTRE_TERMS, "N*K*d", "K^2"),
    ),
    "merge_nearest": Workload(
        _merge,
        {"N": 256},
        ({"N": 12_936}, {"N": 32_621}),
        no_products,
        lambda s: s["N"] * (8.0 * IMAGES + 16),
        terms=("1", "N", "N*log N"),
    ),
    "cycle_positives": Workload(
        _cycles,
        {"B": 4, "K": 256, "d": 128},
        _TABLE,
        products(2),
        lambda s: 4.0 * s["K"] * s["d"],
        terms=("1", "B", "K", "B*K", "B*d", "K*d"),
    ),
    "multi_label_loss": Workload(
        _multi_label, {"B": 16, "K": 512, "d": 64}, _TABLE, products(1), head_bytes, dry=True, terms=_PRODUCTS
    ),
}
