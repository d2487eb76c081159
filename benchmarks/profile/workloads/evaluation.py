"""Evaluation of a retrieval."""

from __future__ import annotations

import torch

from benchmarks.profile.workloads.base import IMAGES, Call, Shape, Workload, generator, images, no_products
from benchmarks.profile.workloads.labels import EXPANDED

RANKED = 20  # k1 of the re-ranking
QUERIES = 8  # one row of so many is a query


def _rank(shape: Shape, dry: bool) -> Call:
    queries, gallery = shape["Q"], shape["G"]
    numbers = generator(0)
    distance = torch.rand(queries, gallery, generator=numbers)
    people = gallery // IMAGES
    ids = [torch.arange(queries) * 7 % people, torch.arange(gallery) % people]
    cameras = [torch.randint(0, 6, (n,), generator=numbers) for n in (queries, gallery)]
    return lambda ops: ops.rank_metrics(distance, *ids, *cameras, 50)


def _re_rank(shape: Shape, dry: bool) -> Call:
    x = images(shape["N"], shape["d"])
    nn = torch.ops.ise_fast.knn(x, RANKED + 1, None, "sqeuclidean", 0)[1]
    return lambda ops: ops.re_ranking(x, nn, shape["N"] // QUERIES, EXPANDED, 0.3, 0)


WORKLOADS = {
    "rank_metrics": Workload(
        _rank, {"Q": 16, "G": 512}, ({"Q": 3_368, "G": 19_732},), no_products, lambda s: 4.0 * s["Q"] * s["G"]
    ),
    "re_ranking": Workload(
        _re_rank,
        {"N": 256, "d": 64},  # below, one row of the product is not a turn of its block
        ({"N": 23_100, "d": 2048},),
        no_products,
        lambda s: 4.0 * s["N"] * (s["d"] + s["N"] / QUERIES),
        terms=("1", "N", "N^2", "N*d", "N^2*d", "N*log N"),
    ),
}
