"""Operators on a part of the rows, as one of two processes calls them: N rows in all, of which it has the even ones."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.profile.workloads.base import Call, Shape, Workload, images, no_products
from benchmarks.profile.workloads.labels import EPS, EXPANDED, PAIRS, VALUES, WIDTH, encoding, neighbours
from benchmarks.profile.workloads.neighbours import NEIGHBOURS, RADIUS
from ise_fast.ops._csr import Csr, offsets_of, take_rows

HALF = 16  # columns of nn that half sets are made of
SET = 32  # members of R*, about


def _neighbours(n: int) -> Tensor:
    return neighbours(n, WIDTH)[1].int()


def _sets(n: int) -> tuple[Tensor, Tensor]:
    """R* of all rows."""
    nn = _neighbours(n)
    bits = torch.ops.ise_fast.reciprocal_bits(nn, 0, n, HALF)
    indptr, indices = torch.ops.ise_fast.expanded_sets(nn, bits, HALF, 0, n)
    return indptr, indices


def _even(v: Csr, odd: int = 0) -> Csr:
    return take_rows(v, torch.arange(odd, len(v[0]) - 1, 2))


def _pattern(shape: Shape, dry: bool) -> Call:
    """The members of R* that the block of the other process has."""
    x = images(shape["N"], shape["d"])
    indptr, indices = _sets(shape["N"])
    indptr, indices, _ = _even((indptr, indices, indices.float()))
    row = torch.arange(len(indptr) - 1).repeat_interleave(indptr.diff())
    there = indices % 2 == 1
    offsets = offsets_of(torch.bincount(row[there], minlength=len(indptr) - 1))
    own, block = x[::2].contiguous(), x[1::2].contiguous()
    return lambda ops: ops.pattern_products(own, block, offsets, indices[there] // 2, "dot")


def _softmax(shape: Shape, dry: bool) -> Call:
    indptr, indices = _sets(shape["N"] // 2)
    product = torch.linspace(-1, 1, len(indices), dtype=torch.float64)
    return lambda ops: ops.softmax_rows(product, indptr)


def _bits(shape: Shape, dry: bool) -> Call:
    nn, n = _neighbours(shape["N"]), shape["N"]
    return lambda ops: ops.reciprocal_bits(nn, 0, n // 2, HALF)


def _expanded(shape: Shape, dry: bool) -> Call:
    nn, n = _neighbours(shape["N"]), shape["N"]
    bits = torch.ops.ise_fast.reciprocal_bits(nn, 0, n, HALF)
    return lambda ops: ops.expanded_sets(nn, bits, HALF, 0, n // 2)


def _average(shape: Shape, dry: bool) -> Call:
    nn = _neighbours(shape["N"])
    v = torch.ops.ise_fast.k_reciprocal_encoding(images(shape["N"], WIDTH), nn.long(), 1)
    named = nn[::2, :EXPANDED].contiguous()
    return lambda ops: ops.average_rows(*v, named)


def _jaccard(shape: Shape, dry: bool) -> Call:
    v = encoding(shape["N"])
    own, block = _even(v), _even(v, 1)
    return lambda ops: ops.jaccard_pairs(*own, *block, False, EPS, 10**12)


def _radius(shape: Shape, dry: bool) -> Call:
    x = images(shape["N"], shape["d"])
    own, block = x[::2].contiguous(), x[1::2].contiguous()
    return lambda ops: ops.radius_pairs(block, own, RADIUS, "cosine", False)


def _unite(shape: Shape, dry: bool) -> Call:
    """The edges of the even rows."""
    n = shape["N"]
    graph = torch.ops.ise_fast.jaccard_graph(*encoding(n), EPS, 0, n)
    indptr, indices, _ = _even(graph)
    row = 2 * torch.arange(len(indptr) - 1).repeat_interleave(indptr.diff()).int()
    parent = torch.arange(n, dtype=torch.int32)
    return lambda ops: ops.unite_(parent.clone(), row, indices)


_ROWS: Shape = {"N": 256}
_WIDE: Shape = {"N": 256, "d": 128}
_ALL = ({"N": 1_000_000},)
_SPARSE = ("1", "N", "N*log N")

WORKLOADS = {
    "pattern_products": Workload(
        _pattern,
        _WIDE,
        ({"N": 1_000_000, "d": 2048},),
        no_products,
        lambda s: s["N"] * (4.0 * s["d"] + 12 / 4 * SET),
        terms=("1", "N", "N*d"),
    ),
    "softmax_rows": Workload(_softmax, _ROWS, _ALL, no_products, lambda s: s["N"] / 2 * 12.0 * SET, terms=_SPARSE),
    "reciprocal_bits": Workload(
        _bits, _ROWS, _ALL, no_products, lambda s: s["N"] * (4.0 * NEIGHBOURS + 1), terms=("1", "N")
    ),
    "expanded_sets": Workload(
        _expanded, _ROWS, _ALL, no_products, lambda s: s["N"] * (4.0 * NEIGHBOURS + 2 + 2 * SET), terms=_SPARSE
    ),
    "average_rows": Workload(
        _average, _ROWS, _ALL, no_products, lambda s: s["N"] * (8.0 * SET + 4 * VALUES), terms=_SPARSE
    ),
    "jaccard_pairs": Workload(
        _jaccard, _ROWS, _ALL, no_products, lambda s: s["N"] * (8.0 * VALUES + 2 * PAIRS), terms=_SPARSE
    ),
    "radius_pairs": Workload(
        _radius,
        _WIDE,
        ({"N": 32_621, "d": 2048},),
        lambda s: 0.5 * s["N"] ** 2 * s["d"],
        lambda s: 4.0 * s["N"] * s["d"],
        terms=("1", "N", "N^2", "N*d"),
    ),
    "unite_": Workload(_unite, _ROWS, _ALL, no_products, lambda s: s["N"] * (8.0 + 4 * PAIRS), terms=_SPARSE),
}
