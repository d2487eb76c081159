"""The ways to search, each forced: prefixes of principal axes of any width, a tree, and neither. Same bits from all."""

from __future__ import annotations

import pytest
import torch
from pseudo_label_data import same_bits
from row_kinds import KINDS, rows
from torch import Tensor
from torch.nn.functional import normalize

from ise_fast import ops, reference
from ise_fast.types import KNN, CSRGraph

TREE, NONE = -2, -1
D = 33  # columns of `rows`
WIDTHS = (1, 8, D - 1, D)


def knn_by(x: Tensor, k: int, y: Tensor | None, metric: str, width: int, block: int = 0) -> KNN:
    return KNN(*torch.ops.ise_fast.knn(x, k, y, metric, block, width)[:2])


def graph_by(x: Tensor, eps: float, metric: str, width: int, block: int = 0) -> CSRGraph:
    return CSRGraph(*torch.ops.ise_fast.radius_graph(x, eps, metric, block, width))


def same_knn(a: KNN, b: KNN) -> bool:
    return a.indices.equal(b.indices) and a.distances.equal(b.distances)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("kind", KINDS)
def test_neighbours_of_every_width(kind: str, metric: str) -> None:
    x = rows(kind)
    y = torch.cat([rows("isotropic", 6), x[:3]])
    for queries, k in ((None, 5), (y, 30)):
        expected = reference.knn(x, k, y=queries, metric=metric)
        for width in (NONE, *WIDTHS):
            assert same_knn(knn_by(x, k, queries, metric, width), expected), width


@pytest.mark.parametrize("metric", ["sqeuclidean", "cosine"])
@pytest.mark.parametrize("kind", KINDS)
def test_graphs_of_every_width(kind: str, metric: str) -> None:
    single = rows(kind)
    near = reference.knn(single, 12, metric=metric).distances[:, -1].median()
    eps = min(float(near), 1e38)
    for x in (single, single.double() * 1.1):
        expected = reference.radius_graph(x, eps, metric=metric)
        few = CSRGraph(*torch.ops.ise_fast.radius_pairs(x, x[:9], eps, metric, False, 0, NONE))
        for width in (NONE, *WIDTHS):
            assert same_bits(graph_by(x, eps, metric, width), expected), width
            assert same_bits(CSRGraph(*torch.ops.ise_fast.radius_pairs(x, x[:9], eps, metric, False, 0, width)), few)


@pytest.mark.parametrize("kind", ["falling spectrum", "integers", "copies"])
def test_blocks_and_threads(restore_threads: None, kind: str) -> None:
    x, y = rows(kind), rows("isotropic", 40)
    for queries in (None, y):
        expected = knn_by(x, 9, queries, "sqeuclidean", NONE)
        for threads in (1, 4):
            torch.set_num_threads(threads)
            for block in (7, 64, 1000):
                for width in (1, 8, D):
                    assert same_knn(knn_by(x, 9, queries, "sqeuclidean", width, block), expected)
    expected_graph = graph_by(x, 2.0, "euclidean", NONE)
    for block in (7, 64, 1000):
        assert same_bits(graph_by(x, 2.0, "euclidean", 8, block), expected_graph)


def test_lists_that_outgrow_their_room() -> None:
    """The bounds of one column of 64 keep many rows; crowds of equal rows are given up and searched again."""
    x = torch.cat([rows("isotropic", 700, 64), rows("copies", 700, 64)])
    assert same_knn(knn_by(x, 20, None, "sqeuclidean", 1), knn_by(x, 20, None, "sqeuclidean", NONE))
    crowd, redone = x[:1].repeat(900, 1), 0
    *_, redone = torch.ops.ise_fast.knn(crowd, 20, None, "sqeuclidean", 0, 1)
    assert int(redone) == 900


def test_rotation_errors_decide_the_order_without_their_margin() -> None:
    """Rows far out, whose neighbours differ by less than float32 prefixes can tell."""
    g = torch.Generator().manual_seed(0)
    x = 30 + 1e-3 * torch.randn(800, 256, generator=g)
    x = x * (1 + 1e-6 * torch.randn(800, 1, generator=g))
    expected = knn_by(x, 3, None, "sqeuclidean", NONE)
    for width in (1, 16, 255):
        assert same_knn(knn_by(x, 3, None, "sqeuclidean", width), expected)


def test_a_chosen_cascade_gives_the_bits_of_none() -> None:
    """Large enough for the choice to be made: a falling spectrum (prefixes), and no structure (none)."""
    g = torch.Generator().manual_seed(0)
    for spectrum in (torch.arange(1, 257) ** -1.0, torch.ones(256)):
        x = normalize(torch.randn(4500, 256, generator=g) * spectrum, dim=1)
        assert same_knn(ops.knn(x, 30), knn_by(x, 30, None, "sqeuclidean", NONE))


@pytest.mark.parametrize("d", [1, 2, 3, 5, 8, 16])
@pytest.mark.parametrize("kind", ["isotropic", "integers", "copies", "equal", "one axis", "mixed scales", "huge"])
def test_the_tree(kind: str, d: int) -> None:
    x = rows(kind, 333, d)
    y = torch.cat([rows("isotropic", 6, d), x[:3]])
    for queries, k in ((None, 7), (y, 333)):
        assert same_knn(knn_by(x, k, queries, "euclidean", TREE), reference.knn(x, k, y=queries, metric="euclidean"))
    eps = min(float(reference.knn(x, 9, metric="euclidean").distances[:, -1].median()), 1e38)
    for typed in (x, x.double() * 1.1):
        for radius in (eps, 0.0, min(10 * eps, 1e38)):  # few of the rows that are compared, none, most
            expected = reference.radius_graph(typed, radius)
            assert same_bits(graph_by(typed, radius, "euclidean", TREE), expected)


def test_the_tree_is_chosen_in_the_plane_and_keeps_the_bits() -> None:
    x = torch.randn(3000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert same_bits(ops.radius_graph(x, 0.05), graph_by(x, 0.05, "euclidean", NONE))
    assert same_knn(ops.knn(x.float(), 8), knn_by(x.float(), 8, None, "sqeuclidean", NONE))
