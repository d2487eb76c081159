"""The ISE head and what it is made of: B images of a batch, K centroids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.profile.workloads.base import IMAGES, Call, Shape, Workload, no_products, unit_rows

SUPPORTS = 1  # k of the ISE head
TEMPERATURE = 0.05


def batch(shape: Shape, dry: bool, rows: str = "B", columns: str = "K") -> tuple[Tensor, Tensor, Tensor]:
    """Features of 16 images a label, their labels, and centroids."""
    count, clusters, d = shape[rows], shape[columns], shape["d"]
    centroids = unit_rows(clusters, d, 1, dry)
    labels = torch.arange(count) // IMAGES * 7 % clusters
    if dry:
        return torch.empty(count, d), labels, centroids
    noise = 0.5 * unit_rows(count, d, 2)
    return torch.nn.functional.normalize(centroids[labels] + noise, dim=1), labels, centroids


def _head_step(with_gram: bool, dtype: torch.dtype = torch.float32) -> Callable[[Shape, bool], Call]:
    """Loss with gradient, backward pass, memory update and, with a Gram matrix, the rows of it that changed.

    The features are of `dtype`, the memory is float32.
    """

    def prepare(shape: Shape, dry: bool) -> Call:
        rows, labels, centroids = batch(shape, dry)
        features, gram = rows.to(dtype), None
        if with_gram:
            gram = torch.empty(len(centroids), len(centroids)) if dry else centroids @ centroids.T
        one = torch.ones(())

        def call(ops: Any) -> Any:
            out = ops.ise_loss(features, labels, centroids, 0.25, SUPPORTS, TEMPERATURE, 0.6, 0.1, gram, True)
            gradient = ops.ise_loss_backward(one, one, one, features, *out[4:], 0.1)
            ops.update_memory_(centroids, rows, labels, out[3], 0.1, "hard")
            if gram is not None:
                ops.refresh_gram_(gram, centroids, labels)
            return out, gradient

        return call

    return prepare


def _cluster_nce(shape: Shape, dry: bool) -> Call:
    features, labels, centroids = batch(shape, dry)

    def call(ops: Any) -> Any:
        loss, gradient = ops.cluster_nce_loss(features, labels, centroids, TEMPERATURE, True)
        return loss, ops.cluster_nce_loss_backward(torch.ones(()), features, gradient)

    return call


def _momentum(shape: Shape, dry: bool) -> Call:
    features, labels, centroids = batch(shape, dry)
    return lambda ops: ops.update_memory_(centroids, features, labels, None, 0.1, "momentum")


def _nearest(shape: Shape, dry: bool) -> Call:
    features, labels, centroids = batch(shape, dry)
    return lambda ops: ops.nearest_centroids(features, centroids, labels, SUPPORTS)


def _supports(shape: Shape, dry: bool) -> Call:
    """The support samples alone and their backward pass, for code that has a loss of its own."""
    features, labels, centroids = batch({**shape, "K": 64}, dry)
    nearest = ((labels + 1) % len(centroids))[:, None]

    def call(ops: Any) -> Any:
        supports, norms = ops.support_samples(features, centroids, labels, nearest, 0.25)
        return ops.support_samples_backward(supports, features, supports, norms)

    return call


def products(number: float) -> Callable[[Shape], float]:
    return lambda shape: number * 2.0 * shape["B"] * shape["K"] * shape["d"]


def head_bytes(shape: Shape) -> float:
    """Float16 centroids and features, read once for each of the two products."""
    return 2.0 * 2 * (shape["K"] + shape["B"]) * shape["d"]


def heads(*sizes: tuple[int, int]) -> tuple[Shape, ...]:
    return tuple({"B": b, "K": k, "d": 2048} for b, k in sizes)


SMALL: Shape = {"B": 32, "K": 64, "d": 64}
_USUAL, _LARGE, _WIDE = heads((256, 3_000)), heads((4_096, 20_000)), heads((256, 1_000_000))


def _two_tiles(shape: Shape) -> int:
    """Half of the centroids: wide_loss.cuh, which takes over where they are too many to be split at once."""
    return shape["K"] * shape["d"] // 2


WORKLOADS = {
    "nearest_centroids": Workload(_nearest, SMALL, _USUAL, products(1), head_bytes, dry=True),
    "support_samples": Workload(
        _supports,
        {"B": 64, "d": 64},
        ({"B": 256, "d": 2048},),
        no_products,
        lambda s: 4.0 * 7 * s["B"] * s["d"],
        dry=True,
        terms=("1", "B", "B*d"),
    ),
    "ise_head_gram": Workload(_head_step(True), SMALL, _USUAL, products(2.06), head_bytes, dry=True),
    "ise_head_odd": Workload(  # no row of the products begins at a multiple of 16 bytes by itself
        _head_step(True), {**SMALL, "K": 63}, heads((256, 2_999)), products(2.06), head_bytes, dry=True
    ),
    "ise_head": Workload(_head_step(False), SMALL, _LARGE, products(2.06), head_bytes, dry=True),
    "ise_head_float16": Workload(_head_step(False, torch.float16), SMALL, _LARGE, products(2.06), head_bytes, dry=True),
    "ise_head_bfloat16": Workload(
        _head_step(False, torch.bfloat16), SMALL, _LARGE, products(2.06), head_bytes, dry=True
    ),
    "ise_head_wide": Workload(
        _head_step(False),
        {"B": 16, "K": 128, "d": 64},
        _WIDE,
        products(2.06),
        head_bytes,
        dry=True,
        most_numbers=_two_tiles,
    ),
    "cluster_nce_loss": Workload(_cluster_nce, SMALL, _USUAL, products(2), head_bytes, dry=True),
    "update_memory_momentum": Workload(
        _momentum, SMALL, _USUAL, no_products, lambda s: 4.0 * s["d"] * (s["B"] + s["B"] / IMAGES * 2), dry=True
    ),
}
