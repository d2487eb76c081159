"""The operators on a part of the rows: against the whole operators, by hand, and with bad input."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from ise_fast import ops
from ise_fast.ops import shards
from ise_fast.ops.jaccard import encode
from ise_fast.reference.k_reciprocal import half_width
from ise_fast.reference.neighbors import fixed_order_sum
from tests.pseudo_label_data import clustered, with_threads

UnitRows = Callable[..., Tensor]
OPS = torch.ops.ise_fast


@pytest.mark.parametrize("d", [1, 31, 33, 200])
def test_products_are_those_of_knn_and_of_the_reference(d: int, unit_rows: UnitRows) -> None:
    x, y = unit_rows(60, d), unit_rows(40, d, 1)
    distances, indices = ops.knn(y, 7, y=x)
    indptr, row = torch.arange(0, 421, 7), torch.arange(60).repeat_interleave(7)
    a, b = x[row].double(), y[indices.flatten()].double()
    for kind, terms in (("sqeuclidean", (a - b).square()), ("dot", a * b)):
        ours = shards.pattern_products(x, y, indptr, indices.flatten().int(), kind)
        assert ours.equal(fixed_order_sum(terms))
    assert (
        shards.pattern_products(x, y, indptr, indices.flatten().int(), "sqeuclidean").float().equal(distances.flatten())
    )


def test_a_range_of_rows_has_the_sets_and_weights_of_all(unit_rows: UnitRows) -> None:
    x = clustered(unit_rows, 300, 16)
    for k1, k2 in ((1, 1), (9, 1), (20, 6)):
        nn, v = encode(x, k1, 1)
        narrow, half = nn.int(), half_width(k1)
        bits = torch.cat([shards.reciprocal_bits(narrow, 0, 120, half), shards.reciprocal_bits(narrow, 120, 300, half)])
        for begin, end in ((0, 300), (37, 210), (5, 5)):
            indptr, indices = shards.expanded_sets(narrow, bits, half, begin, end)
            low, high = int(v[0][begin]), int(v[0][end])
            assert indptr.equal(v[0][begin : end + 1] - low)
            assert indices.equal(v[1][low:high])
            product = shards.pattern_products(x[begin:end], x, indptr, indices, "dot")
            assert shards.softmax_rows(product, indptr).equal(v[2][low:high])
        averaged = shards.average_rows(v, narrow[:, :k2].contiguous())
        if k2 > 1:
            assert all(a.equal(b) for a, b in zip(averaged, encode(x, k1, k2)[1], strict=True))


def test_blocks_of_pairs_are_the_columns_of_the_whole_graph(unit_rows: UnitRows) -> None:
    x = clustered(unit_rows, 300, 16)
    v = encode(x, 20, 6)[1]
    whole = OPS.jaccard_graph(*v, 0.7, 0, 300)
    dense = torch.full((300, 300), 2.0)
    cuts = [0, 100, 101, 300]

    def rows(low: int, high: int) -> tuple[Tensor, Tensor, Tensor]:
        begin, end = int(v[0][low]), int(v[0][high])
        return v[0][low : high + 1] - begin, v[1][begin:end], v[2][begin:end]

    for a, b in pairwise(cuts):
        for c, e in pairwise(cuts):
            indptr, indices, values = shards.jaccard_pairs(
                rows(a, b), rows(c, e), same=a == c, eps=0.7, max_pairs=10**6
            )
            row = torch.arange(b - a).repeat_interleave(indptr.diff())
            dense[a + row, c + indices.long()] = values
    row = torch.arange(300).repeat_interleave(whole[0].diff())
    assert dense[row, whole[1].long()].equal(whole[2])
    assert int((dense < 2).sum()) == len(whole[2])
    with pytest.raises(ValueError, match=r"^max_pairs: expected at most 50 pairs within eps = 0.7, got more"):
        shards.jaccard_pairs(v, v, same=True, eps=0.7, max_pairs=50)


def test_pairs_of_tiny_rows_are_the_same_from_both_sides() -> None:
    """Squares of float64 numbers near 1e-160 lose their digits, and so would an approximate cosine made of them."""
    x = torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = x + 0.1 * x.flip(0)
    y[::2] *= 1e-160
    dense = []
    for base, query in ((x, y), (y, x)):
        indptr, indices, values = shards.radius_pairs(base, query, eps=0.2, metric="cosine", same=False)
        row = torch.arange(20).repeat_interleave(indptr.diff())
        dense.append(torch.full((20, 20), 2.0).index_put((row, indices.long()), values))
    assert 20 < int((dense[0] < 2).sum()) < 400
    assert dense[0].equal(dense[1].T)


def test_unite_by_hand() -> None:
    parent = torch.arange(8, dtype=torch.int32)
    shards.unite_(parent, torch.tensor([7, 3, 6]).int(), torch.tensor([3, 5, 6]).int())
    assert parent.tolist() == [0, 1, 2, 3, 4, 3, 6, 3]
    shards.unite_(parent, torch.tensor([5, 4]).int(), torch.tensor([1, 4]).int())
    assert parent.tolist() == [0, 1, 2, 1, 4, 1, 6, 1]
    everyother = torch.arange(16, dtype=torch.int32).repeat_interleave(2)[::2]
    OPS.unite_(everyother, torch.tensor([15]).int(), torch.tensor([0]).int())
    assert everyother.tolist() == [*range(15), 0]


def test_threads_change_nothing(unit_rows: UnitRows) -> None:
    x = clustered(unit_rows, 300, 16)
    nn, v = encode(x, 20, 6)
    narrow = nn.int()

    def run() -> list[Tensor]:
        bits = shards.reciprocal_bits(narrow, 0, 300, 11)
        sets = shards.expanded_sets(narrow, bits, 11, 0, 300)
        pairs = shards.jaccard_pairs(v, v, same=True, eps=0.7, max_pairs=10**6)
        return [bits, *sets, *pairs, *shards.average_rows(v, narrow[:, :3].contiguous())]

    one, two, four = with_threads(run)
    assert all(a.equal(b) and a.equal(c) for a, b, c in zip(one, two, four, strict=True))


X, P, J = torch.eye(3), torch.tensor([0, 1, 2, 3]), torch.tensor([0, 1, 2]).int()
NN = torch.tensor([[0], [1], [2]]).int()
OUTSIDE = torch.tensor([[0], [-1], [2]]).int()
BITS = torch.zeros(3, 1, dtype=torch.uint8)
HALF = torch.full((3,), 0.5)


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("y: expected size 3", lambda: OPS.pattern_products(X, torch.eye(2), P, J, "dot")),
        ("kind: expected dot or sqeuclidean, got 'cosine'", lambda: OPS.pattern_products(X, X, P, J, "cosine")),
        ("indices: expected 0 to 2, got 3 in row 2", lambda: OPS.pattern_products(X, X, P, J + 1, "dot")),
        ("indptr: expected size 4", lambda: OPS.pattern_products(X, X, P[:3], J[:2], "dot")),
        ("indptr: expected 3", lambda: OPS.pattern_products(X, X, torch.tensor([0, 1, 2, 2]), J, "dot")),
        ("product: expected finite", lambda: OPS.softmax_rows(torch.tensor([0.0, torch.nan, 1.0]).double(), P)),
        ("width: expected 1 to 1, got 2", lambda: OPS.reciprocal_bits(NN, 0, 3, 2)),
        ("end: expected 0 to 3, got 4", lambda: OPS.reciprocal_bits(NN, 0, 4, 1)),
        ("nn: expected 0 to 2, got -1 in row 1", lambda: OPS.reciprocal_bits(OUTSIDE, 0, 3, 1)),
        ("bits: expected uint8, got int32", lambda: OPS.expanded_sets(NN, BITS.int(), 1, 0, 3)),
        ("neighbours: expected 0 to 2, got 3 in row 0", lambda: OPS.average_rows(P, J, HALF, NN + 3)),
        ("values: expected finite", lambda: OPS.jaccard_pairs(P, J, HALF, P, J, -HALF, False, 0.5, 9)),
        ("values: expected weights", lambda: OPS.jaccard_pairs(P, J, 5 * HALF, P, J, HALF, False, 0.5, 9)),
        (r"eps: expected a number in \[0, 1\)", lambda: OPS.jaccard_pairs(P, J, HALF, P, J, HALF, False, 1.0, 9)),
        ("same: expected as many rows", lambda: OPS.jaccard_pairs(P, J, HALF, P[:1], J[:0], HALF[:0], True, 0.5, 9)),
        ("parent: expected 0 to 0 at 0, got 1", lambda: OPS.unite_(J + 1, J, J)),
        ("second: expected 0 to 2, got 3", lambda: OPS.unite_(J.clone(), J, J + 1)),
        ("second: expected size 3", lambda: OPS.unite_(J.clone(), J, J[:2])),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_one_line(message: str, call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


def test_a_refused_union_writes_nothing() -> None:
    parent = torch.arange(3, dtype=torch.int32)
    with pytest.raises(ValueError, match=r"^first: expected"):
        shards.unite_(parent, torch.tensor([2, 9]).int(), torch.tensor([0, 0]).int())
    assert parent.tolist() == [0, 1, 2]
