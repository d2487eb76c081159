"""The CUDA kernels of the operators on a part of the rows, run on the host, against the CPU operators."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from simt.test_kernels import KINDS, assert_same, crowded, encoding, neighbour_rows
from torch import Tensor

from ise_fast.reference.k_reciprocal import half_width

Rows = Callable[..., Tensor]
Csr = tuple[Tensor, Tensor, Tensor]
CPU = torch.ops.ise_fast


def offsets(lengths: list[int] | Tensor) -> Tensor:
    return torch.cat([torch.zeros(1, dtype=torch.int64), torch.as_tensor(lengths, dtype=torch.int64).cumsum(0)])


def part(v: Csr, begin: int, end: int) -> Csr:
    """Rows begin to end."""
    low, high = int(v[0][begin]), int(v[0][end])
    return v[0][begin : end + 1] - low, v[1][low:high], v[2][low:high]


@pytest.mark.parametrize("kind", ["dot", "sqeuclidean"])
@pytest.mark.parametrize(("rows", "others", "d"), [(1, 1, 1), (11, 7, 33), (9, 40, 64), (0, 3, 2), (4, 2, 0)])
def test_pattern_products(simt: Any, unit_rows: Rows, kind: str, rows: int, others: int, d: int) -> None:
    """Rows of 0 to 8 entries, some named twice."""
    x, y = (unit_rows(n, max(d, 1), n)[:, :d] for n in (rows, others))
    indptr = offsets(torch.arange(rows) * 5 % 9)
    indices = (torch.arange(int(indptr[-1])) ** 2 % others).int()
    arguments = (x, y, indptr, indices, kind)
    assert_same([simt.pattern_products(*arguments)], [CPU.pattern_products(*arguments)])


@pytest.mark.parametrize("kind", ["dot", "sqeuclidean"])
@pytest.mark.parametrize("odd", [0.0, math.inf, math.nan])
def test_products_at_the_ends_of_float32(simt: Any, kind: str, odd: float) -> None:
    """Smallest and largest numbers, zeros of both signs; then infinity or NaN in one row of either side."""
    powers = torch.cat([2.0 ** torch.arange(-149.0, 128.0, 4), torch.tensor([0.0, torch.finfo(torch.float32).max])])
    g = torch.Generator().manual_seed(0)
    x, y = (
        torch.stack([powers[torch.randperm(len(powers), generator=g)] for _ in range(9)])
        * torch.randint(2, (9, len(powers)), generator=g).mul(2).sub(1)
        for _ in range(2)
    )
    if odd:
        x[3, 40] = y[5, 7] = odd
    indices = torch.arange(9, dtype=torch.int32).repeat(9)
    arguments = (x, y, torch.arange(0, 82, 9), indices, kind)
    assert_same([simt.pattern_products(*arguments)], [CPU.pattern_products(*arguments)])


@pytest.mark.parametrize("lengths", [[1], [0, 33, 1, 70, 0], []])
def test_softmax_rows(simt: Any, lengths: list[int]) -> None:
    product = torch.randn(sum(lengths), dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 30
    arguments = (product, offsets(lengths))
    assert_same([simt.softmax_rows(*arguments)], [CPU.softmax_rows(*arguments)])


@pytest.mark.parametrize(("n", "k1", "begin", "end"), [(1, 1, 0, 1), (33, 7, 5, 30), (80, 70, 0, 80), (40, 9, 7, 7)])
def test_sets_of_a_part_of_the_rows(simt: Any, unit_rows: Rows, n: int, k1: int, begin: int, end: int) -> None:
    """70 neighbours: half sets of 36 take two rounds of a warp and five bytes. Flags beyond the width mean nothing."""
    x, half = crowded(unit_rows, n, 8), half_width(k1)
    nn = torch.cdist(x, x).topk(k1, largest=False).indices.int()
    for width in (half, k1):
        arguments = (nn, begin, end, width)
        assert_same([simt.reciprocal_bits(*arguments)], [CPU.reciprocal_bits(*arguments)])
    bits = CPU.reciprocal_bits(nn, 0, n, half)
    bits[:, -1] |= 256 - (1 << (half - 1) % 8 + 1)
    arguments = (nn, bits, half, begin, end)
    assert_same(simt.expanded_sets(*arguments), CPU.expanded_sets(*arguments))


@pytest.mark.parametrize(("rows", "k2"), [(1, 1), (21, 3), (9, 17), (0, 2)])
def test_average_rows(simt: Any, unit_rows: Rows, rows: int, k2: int) -> None:
    """Columns up to the largest that there are; rows that are named twice."""
    v = encoding(unit_rows, 40, 7, 1)
    columns = v[1] * 55_063_683 % (2**31 - 1)
    named = (torch.arange(rows * k2) ** 2 % 40).int().reshape(rows, k2)
    arguments = (v[0], columns, v[2], named)
    assert_same(simt.average_rows(*arguments), CPU.average_rows(*arguments))


def test_average_rows_in_several_ranges(simt: Any, unit_rows: Rows) -> None:
    """More entries than the scratch that the pretended device allows at once."""
    v = encoding(unit_rows, 100, 30, 1)
    named = torch.arange(100 * 60).reshape(100, 60).remainder(100).int()
    assert v[1].numel() * 60 > 2 * (64 << 20) // 64 // 64
    assert_same(simt.average_rows(*v, named), CPU.average_rows(*v, named))


@pytest.mark.parametrize("eps", [0.0, 0.6, 0.999])
@pytest.mark.parametrize(("a", "b"), [((0, 40), (0, 40)), ((0, 17), (17, 61)), ((20, 21), (0, 61)), ((3, 9), (5, 5))])
def test_jaccard_pairs(simt: Any, unit_rows: Rows, a: tuple[int, int], b: tuple[int, int], eps: float) -> None:
    """Columns that only one of the blocks has, and weights of zero."""
    v = encoding(unit_rows, 61, 7, 3)
    v[2][5::11] = 0
    v = v[0], v[1] * 35_000_000 + 7, v[2]
    for first, second in ((a, b), (b, a)):
        arguments = (*part(v, *first), *part(v, *second), a == b, eps, 10**6)
        assert_same(simt.jaccard_pairs(*arguments), CPU.jaccard_pairs(*arguments))


@pytest.mark.parametrize("same", [False, True])
def test_jaccard_pairs_of_rows_beyond_the_hash_table(simt: Any, same: bool) -> None:
    """Three rows meet all of the other block, the rest hardly any; one shares nothing, with itself neither."""
    n = 90
    weights = torch.diag(torch.linspace(0.3, 0.9, n))
    weights[:3] = torch.linspace(0.5, 1.5, 3 * n).view(3, n) / n
    weights[2] = torch.where(torch.arange(n) == 2, 0.0, weights[2])
    weights[3] = 0
    v = offsets(weights.gt(0).sum(1)), weights.nonzero()[:, 1].int(), weights[weights > 0]
    for eps in (0.5, 0.999):
        arguments = (*v, *v, same, eps, 10**6)
        assert_same(simt.jaccard_pairs(*arguments), CPU.jaccard_pairs(*arguments))


@pytest.mark.parametrize(("rows", "edges"), [(1, 1), (50, 40), (70, 300), (9, 0), (0, 0)])
def test_unite(simt: Any, rows: int, edges: int) -> None:
    """Twice: the second time from trees that are there. Every other element of a tensor is written."""
    generator = torch.Generator().manual_seed(rows + edges)
    ours, expected = (torch.arange(rows, dtype=torch.int32).repeat_interleave(2) for _ in "ab")
    for _ in range(2):
        one, two = (torch.randint(max(rows, 1), (edges,), generator=generator).int() for _ in "ab")
        simt.unite_(ours[::2], one, two)
        CPU.unite_(expected[::2], one, two)
        assert_same([ours], [expected])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("kind", "metric"), KINDS[:4])
def test_radius_pairs(simt: Any, kind: str, metric: str, dtype: torch.dtype) -> None:
    eps = {"sqeuclidean": 5.0, "euclidean": 2.0, "cosine": 0.7}[metric]
    x, y = neighbour_rows(kind, 37, 5).to(dtype), neighbour_rows(kind, 50, 5).to(dtype)
    x[3] = 0
    for base, query, same in ((x, y, False), (y[:3], x, False), (x, x, True), (x[:0], y, False), (x, y[:0], False)):
        arguments = (base, query, eps, metric, same)
        assert_same(simt.radius_pairs(*arguments), CPU.radius_pairs(*arguments))


X, P, J = torch.eye(3), torch.tensor([0, 1, 2, 3]), torch.tensor([0, 1, 2]).int()
FELL, LATE, LONG = torch.tensor([0, 2, 1, 3]), torch.tensor([1, 1, 2, 3]), torch.tensor([0, 1, 2, 2**50])
NN = torch.tensor([[0, 1], [1, 0], [2, 1]]).int()
OUTSIDE = torch.tensor([[0, 1], [1, -1], [2, 3]]).int()
BITS = torch.zeros(3, 1, dtype=torch.uint8)
HALF = torch.full((3,), 0.5)
PRODUCT = torch.tensor([0.0, torch.nan, 1.0]).double()


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        *(("pattern_products", (X, X, offsets, J, "dot")) for offsets in (FELL, LATE, LONG)),
        ("pattern_products", (X, X, P, J + 1, "dot")),
        ("pattern_products", (X, X, P, J, "cosine")),
        ("softmax_rows", (PRODUCT, P)),
        ("softmax_rows", (-PRODUCT[::2] / 0, P[:3])),
        ("softmax_rows", (PRODUCT, FELL)),
        ("reciprocal_bits", (OUTSIDE, 0, 3, 2)),
        ("expanded_sets", (OUTSIDE, BITS, 2, 0, 3)),
        ("average_rows", (P, J, HALF, NN + 2)),
        ("average_rows", (LATE, J, HALF, NN)),
        ("jaccard_pairs", (P, J, HALF, P, J, -HALF, False, 0.5, 9)),
        ("jaccard_pairs", (P, J, HALF, P, J - 1, HALF, False, 0.5, 9)),
        ("jaccard_pairs", (P, J, HALF, torch.tensor([0, 3]), J.flip(0), HALF, False, 0.5, 9)),
        ("jaccard_pairs", (torch.tensor([0, 0, 3]), J, 1.5 * HALF, P, J, HALF, False, 0.5, 9)),
        ("jaccard_pairs", (FELL, J, HALF, P, J, HALF, False, 0.5, 9)),
        ("jaccard_pairs", (P, J, HALF, P[:1], J[:0], HALF[:0], True, 0.5, 9)),
        ("jaccard_pairs", (P, J, HALF, P, J, HALF, True, 0.5, 2)),
        ("radius_pairs", (X / 0, X, 0.5, "euclidean", True)),
        ("radius_pairs", (X, X / 0, 0.5, "euclidean", True)),
        ("unite_", (J + 1, J, J)),
        ("unite_", (-J, J, J)),
        ("unite_", (J.clone(), J, J + 1)),
        ("unite_", (J.clone(), J - 1, J)),
        ("unite_", (J[:0].clone(), J, J)),
    ],
)
def test_bad_parts_are_refused_with_the_words_of_the_cpu(simt: Any, name: str, arguments: tuple[Any, ...]) -> None:
    before = [a.clone() for a in arguments if isinstance(a, Tensor)]
    with pytest.raises(ValueError, match=r"^\w+: expected") as expected:
        getattr(CPU, name)(*arguments)
    with pytest.raises(ValueError, match=r"^\w+: expected") as found:
        getattr(simt, name)(*arguments)
    assert str(found.value) == str(expected.value)
    assert_same([a for a in arguments if isinstance(a, Tensor)], before)
