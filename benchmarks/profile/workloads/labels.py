"""From neighbours to pseudo labels: what a row costs does not depend on how many rows there are (base.py)."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from benchmarks.profile.workloads.base import Call, Shape, Workload, images, no_products
from benchmarks.profile.workloads.neighbours import NEIGHBOURS

EXPANDED, EPS, MIN_SAMPLES = 6, 0.6, 4  # k2, distance and density of the pseudo labels
WIDTH = 128  # of the features where only the graph matters
VALUES, PAIRS = 42, 16  # of a row: entries of V', pairs within EPS


@lru_cache(maxsize=1)  # several workloads of a shape follow each other, and a million rows take seconds
def neighbours(n: int, d: int) -> tuple[Tensor, Tensor]:
    x = images(n, d)
    return x, torch.ops.ise_fast.knn(x, NEIGHBOURS, None, "cosine", 0)[1]


def encoding(n: int) -> tuple[Tensor, Tensor, Tensor]:
    v: tuple[Tensor, Tensor, Tensor] = torch.ops.ise_fast.k_reciprocal_encoding(*neighbours(n, WIDTH), EXPANDED)
    return v


def _encode(shape: Shape, dry: bool) -> Call:
    x, nn = neighbours(shape["N"], shape["d"])
    return lambda ops: ops.k_reciprocal_encoding(x, nn, EXPANDED)


def _jaccard(shape: Shape, dry: bool) -> Call:
    v = encoding(shape["N"])
    return lambda ops: ops.jaccard_graph(*v, EPS, 0, shape["N"])


def _jaccard_matrix(shape: Shape, dry: bool) -> Call:
    v = encoding(shape["N"])
    return lambda ops: ops.jaccard_distance(*v)


def _dbscan(shape: Shape, dry: bool) -> Call:
    graph = torch.ops.ise_fast.jaccard_graph(*encoding(shape["N"]), EPS, 0, shape["N"])
    return lambda ops: ops.dbscan(*graph, EPS, MIN_SAMPLES)


def _dbscan_matrix(shape: Shape, dry: bool) -> Call:
    distance = torch.ops.ise_fast.jaccard_distance(*encoding(shape["N"]))
    return lambda ops: ops.dbscan_dense(distance, EPS, MIN_SAMPLES)


_SIZES = 12_936, 32_621, 1_000_000
_SETS = tuple({"N": n} for n in _SIZES)
_ROWS: Shape = {"N": 256}
_SPARSE = ("1", "N", "N*log N")  # CUB's passes and searches in sorted keys have the logarithm

WORKLOADS = {
    "k_reciprocal_encoding": Workload(
        _encode,
        {"N": 256, "d": 128},
        tuple({"N": n, "d": 2048} for n in _SIZES),
        no_products,
        lambda s: s["N"] * (4.0 * s["d"] + 8 * NEIGHBOURS + 8 * VALUES),
        terms=(*_SPARSE, "N*d"),
    ),
    "jaccard_graph": Workload(
        _jaccard, _ROWS, _SETS, no_products, lambda s: s["N"] * 8.0 * (VALUES + PAIRS), terms=_SPARSE
    ),
    "jaccard_distance": Workload(
        _jaccard_matrix,
        _ROWS,
        _SETS[:1],
        no_products,
        lambda s: 8.0 * s["N"] * VALUES + 4.0 * s["N"] ** 2,
        terms=("1", "N", "N*log N", "N^2"),
    ),
    "dbscan": Workload(_dbscan, _ROWS, _SETS, no_products, lambda s: s["N"] * (8.0 * PAIRS + 9), terms=_SPARSE),
    "dbscan_dense": Workload(
        _dbscan_matrix, _ROWS, _SETS[:1], no_products, lambda s: 4.0 * s["N"] ** 2, terms=("1", "N", "N^2")
    ),
}
