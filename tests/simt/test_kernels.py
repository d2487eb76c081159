"""Every CUDA kernel, run on the host, against the CPU operator: one function per operator, small odd sizes.

`simt.X` is csrc/cuda/X.cu on CPU tensors; docs/kernels.md says how that works and what it cannot show.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from simt.build import KERNEL_TESTS
from torch import Tensor

Rows = Callable[..., Tensor]


def assert_same(ours: Any, expected: Any) -> None:
    """Equal bits: shapes, dtypes and every value."""
    for mine, theirs in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("rows", "clusters", "d", "k"),
    [(1, 2, 1, 1), (5, 33, 31, 3), (7, 9, 65, 8), (0, 4, 8, 2), (1, 2100, 3, 2), (1, 300, 2, 280), (2, 9, 2100, 2)],
)
def test_nearest_centroids(simt: Any, unit_rows: Rows, rows: int, clusters: int, d: int, k: int) -> None:
    features, centroids = unit_rows(rows, d), unit_rows(clusters, d, seed=1)
    centroids[clusters // 2] = centroids[0]  # a tie
    labels = torch.arange(rows) % clusters
    assert_same(
        simt.nearest_centroids(features, centroids, labels, k),
        torch.ops.ise_fast.nearest_centroids(features, centroids, labels, k),
    )


def crowded(unit_rows: Rows, n: int, d: int) -> Tensor:
    """Unit rows around n / 8 centres, with copies of one row and a row that is close to all."""
    centres = unit_rows(max(n // 8, 1), d, 1).repeat(16, 1)[:n]
    x = torch.nn.functional.normalize(centres + 0.6 * unit_rows(n, d, 2), dim=1)
    x[n // 2 : n // 2 + n // 5] = x[0]
    x[-1] = torch.nn.functional.normalize(x.sum(0), dim=0)
    return x


@pytest.mark.parametrize(
    ("n", "d", "k1", "k2"), [(1, 3, 1, 1), (33, 5, 1, 1), (61, 31, 7, 3), (70, 33, 40, 6), (67, 8, 30, 1), (0, 3, 2, 2)]
)
def test_k_reciprocal_encoding(simt: Any, unit_rows: Rows, n: int, d: int, k1: int, k2: int) -> None:
    x = crowded(unit_rows, n, d) if n > 1 else unit_rows(n, d)
    nn = torch.cdist(x, x).topk(k1, largest=False).indices if n else torch.empty(0, k1, dtype=torch.int64)
    assert_same(simt.k_reciprocal_encoding(x, nn, k2), torch.ops.ise_fast.k_reciprocal_encoding(x, nn, k2))


def encoding(unit_rows: Rows, n: int, k1: int, k2: int) -> tuple[Tensor, Tensor, Tensor]:
    x = crowded(unit_rows, n, 8)
    nn = torch.cdist(x, x).topk(k1, largest=False).indices
    return torch.ops.ise_fast.k_reciprocal_encoding(x, nn, k2)


@pytest.mark.parametrize(("n", "k1", "k2"), [(33, 1, 1), (61, 7, 3), (65, 30, 1)])
def test_jaccard(simt: Any, unit_rows: Rows, n: int, k1: int, k2: int) -> None:
    v = encoding(unit_rows, n, k1, k2)
    assert simt.jaccard_distance(*v).equal(torch.ops.ise_fast.jaccard_distance(*v))
    for eps, begin, end in ((0.0, 0, n), (0.6, 0, n), (0.999, 3, n - 2), (0.5, 4, 4)):
        arguments = (*v, eps, begin, end)
        assert_same(simt.jaccard_graph(*arguments), torch.ops.ise_fast.jaccard_graph(*arguments))


@pytest.mark.parametrize(
    ("n", "hubs", "begin", "end"), [(80, 2, 0, 80), (150, 9, 0, 150), (90, 1, 0, 40), (70, 3, 1, 70)]
)
def test_jaccard_of_rows_beyond_the_hash_table(simt: Any, n: int, hubs: int, begin: int, end: int) -> None:
    """Hubs meet every row; the others meet hardly any, and the table is sized for these: the hubs' sums do not fit."""
    weights = torch.diag(torch.linspace(0.3, 0.9, n))
    weights[:hubs] = torch.linspace(0.5, 1.5, hubs * n).view(hubs, n) / n
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), weights.gt(0).sum(1).cumsum(0)])
    v = indptr, weights.nonzero()[:, 1].int(), weights[weights > 0]
    terms = (indptr.diff() * (hubs + 1))[begin:end].sum() // (end - begin) + 1  # every column has hubs + 1 entries
    assert max(32, 2 ** int(terms - 1).bit_length()) < n  # the table's slots
    for eps in (0.5, 0.999):
        arguments = (*v, eps, begin, end)
        assert_same(simt.jaccard_graph(*arguments), torch.ops.ise_fast.jaccard_graph(*arguments))


def test_distance_of_a_row_beyond_the_hash_table(simt: Any) -> None:
    """The first row shares a feature with each of the others, which share nothing with each other."""
    n = 1100  # above kDistanceSlots
    others = torch.arange(1, n)
    indptr = torch.cat([torch.tensor([0]), n - 1 + torch.arange(n)])
    weights = torch.cat([torch.linspace(0.5, 1.5, n - 1) / n, torch.full((n - 1,), 0.3)])
    v = indptr, torch.cat([others, others]).int(), weights
    assert simt.jaccard_distance(*v).equal(torch.ops.ise_fast.jaccard_distance(*v))


def test_jaccard_of_more_rows_beyond_the_table_than_blocks(simt: Any) -> None:
    """Ten groups of rows that share one feature each, and twenty rows that belong to two or three of them."""
    weights = torch.zeros(200, 200)
    for i in range(180):
        weights[i, i % 10 * 3] = 0.2 + i / 250
    for i in range(180, 200):
        weights[i, [i % 10 * 3, (i + 3) % 10 * 3]] = 0.3
    weights[195:, 27] = 0.25
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), weights.gt(0).sum(1).cumsum(0)])
    arguments = (indptr, weights.nonzero()[:, 1].int(), weights[weights > 0], 0.9, 0, 200)
    assert_same(simt.jaccard_graph(*arguments), torch.ops.ise_fast.jaccard_graph(*arguments))


def test_jaccard_of_many_pairs(simt: Any) -> None:
    everything = torch.arange(0, 81) * 2, torch.tensor([0, 1] * 80, dtype=torch.int32), torch.full((160,), 0.5)
    assert torch.ops.ise_fast.jaccard_graph(*everything, 0.5, 0, 80)[1].numel() > 32 * 80  # the first guess
    assert_same(simt.jaccard_graph(*everything, 0.5, 0, 80), torch.ops.ise_fast.jaccard_graph(*everything, 0.5, 0, 80))
    pairs = torch.ops.ise_fast.jaccard_graph(*everything, 0.5, 0, 80)[1].numel()
    assert_same(
        simt.jaccard_graph(*everything, 0.5, 0, 80, pairs), torch.ops.ise_fast.jaccard_graph(*everything, 0.5, 0, 80)
    )
    for bound in (pairs - 1, 7):
        with pytest.raises(ValueError, match=r"^max_pairs: expected at most") as expected:
            torch.ops.ise_fast.jaccard_graph(*everything, 0.5, 0, 80, bound)
        with pytest.raises(ValueError, match=r"^max_pairs: expected at most") as found:
            simt.jaccard_graph(*everything, 0.5, 0, 80, bound)
        assert str(found.value) == str(expected.value)


def random_graph(n: int, share: float, seed: int, symmetric: bool = True) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    near = torch.rand(n, n, generator=generator) < share
    distance = torch.where(near, torch.randint(0, 5, (n, n), generator=generator) / 10, 1.0)
    return distance.triu() + distance.triu(1).T if symmetric else distance


@pytest.mark.parametrize(
    ("n", "share", "dtype", "symmetric"),
    [
        (1, 1.0, torch.float32, True),
        (70, 0.02, torch.float32, True),
        (35, 0.2, torch.float64, True),
        (40, 0.05, torch.float32, False),
        (0, 0.5, torch.float64, False),
    ],
)
def test_dbscan(simt: Any, n: int, share: float, dtype: torch.dtype, symmetric: bool) -> None:
    """An asymmetric graph is handed to the CPU operator, so there this tests the detection."""
    distance = random_graph(n, share, n, symmetric).to(dtype)
    stored = distance < 1
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), stored.sum(1).cumsum(0)])
    for min_samples in (1, 3):
        assert_same(
            simt.dbscan_dense(distance, 0.3, min_samples),
            torch.ops.ise_fast.dbscan_dense(distance, 0.3, min_samples),
        )
        columns = stored.nonzero()[:, 1].to(torch.int32 if min_samples == 1 else torch.int64)
        arguments = (indptr, columns, distance[stored], 0.3, min_samples)
        assert_same(simt.dbscan(*arguments), torch.ops.ise_fast.dbscan(*arguments))


GRAPH = {
    "indptr": torch.tensor([0, 2, 3]),
    "indices": torch.tensor([0, 1, 1]),
    "values": torch.tensor([0.5, 0.5, 1.0]),
}


@pytest.mark.parametrize(
    "change",
    [
        {"indptr": torch.tensor([0, 3, 2])},
        {"indptr": torch.tensor([1, 2, 3])},
        {"indptr": torch.tensor([0, 2, 2**60])},
        {"indptr": torch.tensor([0, -5, 3])},
        {"indices": torch.tensor([0, 2, 1])},
        {"indices": torch.tensor([0, 1, -1])},
        {"indices": torch.tensor([1, 0, 1])},
        {"indices": torch.tensor([1, 1, 1])},
        {"values": torch.tensor([0.5, torch.nan, 1.0])},
        {"values": torch.tensor([0.5, 0.5, -1.0])},
        {"values": torch.tensor([0.5, 0.5, torch.inf])},
    ],
)
def test_bad_graphs_are_refused_with_the_words_of_the_cpu(simt: Any, change: dict[str, Tensor]) -> None:
    graph = {**GRAPH, **change}
    with pytest.raises(ValueError, match=r"^(indptr|indices|values): expected") as expected:
        torch.ops.ise_fast.dbscan(**graph, eps=0.5, min_samples=2)
    with pytest.raises(ValueError, match=r"^(indptr|indices|values): expected") as found:
        simt.dbscan(**graph, eps=0.5, min_samples=2)
    assert str(found.value) == str(expected.value)
    graph["indices"] = graph["indices"].int()
    arguments = {"eps": 0.5, "begin": 0, "end": 2}
    with pytest.raises(ValueError, match=r"^(indptr|indices|values): expected") as expected:
        torch.ops.ise_fast.jaccard_graph(**graph, **arguments)
    for rows in ({}, {"begin": 1, "end": 1}):
        with pytest.raises(ValueError, match=r"^(indptr|indices|values): expected") as found:
            simt.jaccard_graph(**graph, **{**arguments, **rows})
        assert str(found.value) == str(expected.value)


@pytest.mark.parametrize("place", [0, 40, 69])
@pytest.mark.parametrize("name", ["indptr", "indices", "values"])
def test_kernels_do_not_follow_a_graph_that_will_be_refused(simt: Any, unit_rows: Rows, name: str, place: int) -> None:
    """The host reads what is wrong when all kernels have run."""
    v = dict(zip(("indptr", "indices", "values"), encoding(unit_rows, 70, 7, 3), strict=True))
    v[name] = v[name].clone()
    v[name][place] = {"indptr": 2**40, "indices": 2**30, "values": float("nan")}[name]
    for operator, arguments in (("jaccard_graph", (0.5, 0, 70)), ("dbscan", (0.5, 2))):
        with pytest.raises(ValueError, match=f"^{name}: expected") as expected:
            getattr(torch.ops.ise_fast, operator)(*v.values(), *arguments)
        with pytest.raises(ValueError, match=f"^{name}: expected") as found:
            getattr(simt, operator)(*v.values(), *arguments)
        assert str(found.value) == str(expected.value)


def test_bad_neighbours_and_distances_are_refused(simt: Any) -> None:
    with pytest.raises(ValueError, match=r"^nn: expected 0 to 2, got 3 in row 1"):
        simt.k_reciprocal_encoding(torch.eye(3), torch.tensor([[0, 1], [1, 3], [-1, 0]]), 1)
    with pytest.raises(ValueError, match=r"^graph: expected finite values of at least 0, got -1 at row 1, column 0"):
        simt.dbscan_dense(torch.tensor([[0.0, 1.0], [-1.0, torch.nan]]), 0.5, 1)


def head_batch(unit_rows: Rows, rows: int, clusters: int, d: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features near their centroids, groups of unequal size, two equal centroids."""
    centroids, labels = unit_rows(clusters, d, seed=1), torch.arange(rows) ** 2 % clusters
    centroids[clusters - 1] = centroids[0]
    return torch.nn.functional.normalize(centroids[labels] + 0.5 * unit_rows(rows, d), dim=1), labels, centroids


@pytest.mark.parametrize(("rows", "clusters", "d", "k"), [(1, 2, 1, 1), (5, 7, 33, 3), (0, 4, 8, 2), (2, 3, 2100, 1)])
def test_support_samples(simt: Any, unit_rows: Rows, rows: int, clusters: int, d: int, k: int) -> None:
    features, labels, centroids = head_batch(unit_rows, rows, clusters, d)
    cpu = torch.ops.ise_fast
    nearest = cpu.nearest_centroids(features, centroids, labels, k)[1]
    supports, norms = cpu.support_samples(features, centroids, labels, nearest, 0.3)
    assert_same(simt.support_samples(features, centroids, labels, nearest, 0.3), (supports, norms))
    grad = unit_rows(rows * k, d, seed=2).unflatten(0, (rows, k))
    ours = simt.support_samples_backward(grad, features, supports, norms)
    expected = cpu.support_samples_backward(grad, features, supports, norms)
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("mode", ["hard", "momentum"])
@pytest.mark.parametrize(
    ("rows", "clusters", "d", "k"),
    [(1, 1, 1, 0), (9, 4, 33, 2), (6, 9, 70, 1), (0, 3, 4, 0), (75, 2, 300, 1)],  # the last: labels over several warps
)
def test_update_memory(simt: Any, unit_rows: Rows, mode: str, rows: int, clusters: int, d: int, k: int) -> None:
    features, labels, centroids = head_batch(unit_rows, rows, clusters, d)
    supports = unit_rows(rows * k, d, seed=3).unflatten(0, (rows, k)) if k else None
    ours, expected = centroids.clone(), centroids.clone()
    simt.update_memory_(ours, features, labels, supports, 0.3, mode)
    torch.ops.ise_fast.update_memory_(expected, features, labels, supports, 0.3, mode)
    assert_same([ours], [expected])
    grams = [centroids @ centroids.T, torch.empty(clusters, clusters)]
    simt.refresh_gram_(grams[0], ours, labels)
    simt.refresh_gram_(grams[1], ours, None)
    torch.testing.assert_close(grams[0], grams[1], rtol=0, atol=5e-7)


def test_update_memory_by_more_rows_than_are_listed_at_once(simt: Any, unit_rows: Rows) -> None:
    features, labels, centroids = head_batch(unit_rows, 6, 3, 2)
    supports = unit_rows(6 * 350, 2, seed=3).unflatten(0, (6, 350))
    supports[-1, -1] = -centroids[labels[-1]]  # the least similar of all comes last
    ours, expected = centroids.clone(), centroids.clone()
    simt.update_memory_(ours, features, labels, supports, 0.3, "hard")
    torch.ops.ise_fast.update_memory_(expected, features, labels, supports, 0.3, "hard")
    assert_same([ours], [expected])


@pytest.mark.parametrize("d", [1, 33, 300])
def test_refresh_gram_of_many_labels(simt: Any, unit_rows: Rows, d: int) -> None:
    """More changed clusters than a block multiplies at once, and groups of them than blocks that share a tile."""
    centroids = unit_rows(75, d)
    labels = torch.arange(70) * 4 % 75
    gram = torch.full((75, 75), -7.0)
    simt.refresh_gram_(gram, centroids, labels)
    changed = torch.zeros(75, dtype=torch.bool)
    changed[labels] = True
    exact = centroids.double() @ centroids.double().T
    assert (gram - torch.where(changed[:, None] | changed, exact, -7.0)).abs().max() < 2e-7
    assert torch.equal(gram, gram.T)


def test_rows_that_are_written_may_also_be_read(simt: Any, unit_rows: Rows) -> None:
    cpu = torch.ops.ise_fast
    ours, expected = unit_rows(6, 9), unit_rows(6, 9)
    labels, counts, members = torch.tensor([5, 4, 1]), torch.tensor([0, 2, 4, 6]), torch.tensor([3, 5, 0, 2, 1, 4])
    for ops, c in ((simt, ours), (cpu, expected)):
        ops.update_memory_(c, c[:3], labels, c[3:].view(3, 1, 9), 0.3, "momentum")
        ops.refresh_groups_(c[:3], c, counts, members, torch.arange(3))
    assert_same([ours], [expected])


@pytest.mark.parametrize("d", [5000, 6144])  # staged, and too long for it beside what else is there
def test_update_memory_of_rows_that_fill_shared_memory(simt: Any, unit_rows: Rows, d: int) -> None:
    features, labels, centroids = head_batch(unit_rows, 3, 2, d)
    ours, expected = centroids.clone(), centroids.clone()
    simt.update_memory_(ours, features, labels, None, 0.3, "momentum")
    torch.ops.ise_fast.update_memory_(expected, features, labels, None, 0.3, "momentum")
    assert_same([ours], [expected])


@pytest.mark.parametrize(
    ("rows", "clusters", "d", "k", "tau"),
    [(1, 2, 1, 1, 0.05), (6, 7, 33, 3, 0.05), (9, 300, 8, 2, 0.01), (5, 4, 270, 1, 1.0)],
)
@pytest.mark.parametrize("with_gram", [False, True])
def test_ise_loss(
    simt: Any, unit_rows: Rows, rows: int, clusters: int, d: int, k: int, tau: float, with_gram: bool
) -> None:
    features, labels, centroids = head_batch(unit_rows, rows, clusters, d)
    gram = centroids @ centroids.T if with_gram else None
    arguments = (features, labels, centroids, 0.25, k, tau, 0.6, 0.5, gram, True)
    ours, expected = simt.ise_loss(*arguments), torch.ops.ise_fast.ise_loss(*arguments)
    for mine, theirs in zip(ours, expected, strict=True):
        scale = float(theirs.abs().max()) + 0.1
        torch.testing.assert_close(mine, theirs, rtol=0, atol=4e-6 * scale * max(1.0, 0.05 / tau))
    assert_same([ours[3]], [expected[3]])
    degree = torch.tensor(0.25, dtype=torch.float64)  # takes the place of the number
    assert_same(simt.ise_loss(*arguments[:3], 0.9, *arguments[4:], degree), ours)
    one = torch.ones(())
    backward = (one, 2 * one, 3 * one, features, *expected[4:], 0.5)
    assert_same([simt.ise_loss_backward(*backward)], [torch.ops.ise_fast.ise_loss_backward(*backward)])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_losses_of_short_types(simt: Any, unit_rows: Rows, dtype: torch.dtype) -> None:
    """More of them in test_mixed_precision.py."""
    features, labels, centroids = head_batch(unit_rows, 5, 7, 33)
    features, centroids = features.to(dtype), centroids.to(dtype)
    arguments = (features, labels, centroids, 0.25, 2, 0.1, 0.6, 0.5, None, True)
    ours, expected = simt.ise_loss(*arguments), torch.ops.ise_fast.ise_loss(*arguments)
    for mine, theirs in zip(ours, expected, strict=True):
        rounding = 2 * torch.finfo(dtype).eps * (float(theirs.abs().max()) + 0.1)
        torch.testing.assert_close(mine, theirs, rtol=0, atol=rounding)
    assert_same([ours[3]], [expected[3]])
    one = torch.ones(())
    backward = (one, 2 * one, 3 * one, features, *expected[4:], 0.5)
    assert_same([simt.ise_loss_backward(*backward)], [torch.ops.ise_fast.ise_loss_backward(*backward)])


def test_ise_loss_of_columns_that_do_not_fill_a_block(simt: Any, unit_rows: Rows) -> None:
    """131 columns: the last threads of a block have none. 140 supports of 9 labels, more than a block has rows."""
    features, labels, centroids = head_batch(unit_rows, 70, 9, 131)
    arguments = (features, labels, centroids, 0.25, 2, 0.05, 0.6, 0.5, None, True)
    ours, expected = simt.ise_loss(*arguments), torch.ops.ise_fast.ise_loss(*arguments)
    torch.testing.assert_close(ours[5], expected[5], rtol=0, atol=4e-6 * (float(expected[5].abs().max()) + 0.1))


def test_ise_loss_without_the_label_preserving_term(simt: Any, unit_rows: Rows) -> None:
    features, labels, centroids = head_batch(unit_rows, 6, 7, 33)
    full, ours = (simt.ise_loss(features, labels, centroids, 0.25, 2, 0.05, 0.6, w, None, True) for w in (0.5, 0.0))
    assert ours[2] == 0
    assert_same([ours[0], *ours[3:5]], [full[1], *full[3:5]])
    assert ours[5].shape == (0, 33)
    one = torch.ones(())
    backward = (one, 2 * one, 3 * one, features, *ours[4:], 0.0)
    assert_same([simt.ise_loss_backward(*backward)], [torch.ops.ise_fast.ise_loss_backward(*backward)])


def test_label_preserving_term_of_labels_over_several_warps(simt: Any, unit_rows: Rows) -> None:
    """Rows of one label, of more than one and of many, further apart than a warp looks at once."""
    features, centroids = unit_rows(40, 2), unit_rows(35, 2, seed=1)
    labels = torch.cat([torch.arange(34), torch.tensor([3, 34, 3, 0, 33, 33])])
    arguments = (features, labels, centroids, 0.25, 1, 0.05, 0.6, 0.5, None, True)
    ours, expected = simt.ise_loss(*arguments), torch.ops.ise_fast.ise_loss(*arguments)
    torch.testing.assert_close(ours[2], expected[2], rtol=1e-6, atol=0)
    torch.testing.assert_close(ours[5], expected[5], rtol=0, atol=4e-6)


@pytest.mark.parametrize(("rows", "clusters", "d"), [(1, 1, 1), (7, 5, 33)])
def test_cluster_nce_loss(simt: Any, unit_rows: Rows, rows: int, clusters: int, d: int) -> None:
    features, labels, centroids = head_batch(unit_rows, rows, clusters, d)
    ours = simt.cluster_nce_loss(features, labels, centroids, 0.05, True)
    expected = torch.ops.ise_fast.cluster_nce_loss(features, labels, centroids, 0.05, True)
    for mine, theirs in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=4e-6)
    backward = (torch.tensor(2.0), features, expected[1])
    assert_same([simt.cluster_nce_loss_backward(*backward)], [torch.ops.ise_fast.cluster_nce_loss_backward(*backward)])


@pytest.mark.parametrize("bad", ["feature", "centroid"])
def test_nan_with_a_single_centroid(simt: Any, unit_rows: Rows, bad: str) -> None:
    features, centroids = unit_rows(3, 5), unit_rows(1, 5, seed=1)
    (features if bad == "feature" else centroids)[0, 2] = torch.nan
    assert simt.cluster_nce_loss(features, torch.zeros(3, dtype=torch.int64), centroids, 0.05, True)[0].isnan()


def test_an_infinite_centroid_that_no_feature_is_near_to(simt: Any, unit_rows: Rows) -> None:
    features, labels, centroids = head_batch(unit_rows, 4, 6, 8)
    features[:, 3] = -0.5
    centroids[5, 3] = torch.inf
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        assert simt.cluster_nce_loss(features.to(dtype), labels, centroids, 0.05, True)[0].isnan()


@pytest.mark.parametrize("label", [-1, 5, 2**40])
def test_label_without_centroid_is_nan_not_a_crash(simt: Any, unit_rows: Rows, label: int) -> None:
    features, labels, centroids = head_batch(unit_rows, 4, 5, 33)
    labels[2] = label
    for gram in (None, centroids @ centroids.T):
        out = simt.ise_loss(features, labels, centroids, 0.25, 2, 0.05, 0.6, 0.1, gram, True)
        assert all(value.isnan() for value in out[:3])
    assert simt.cluster_nce_loss(features, labels, centroids, 0.05, True)[0].isnan()
    assert simt.nearest_centroids(features, centroids, labels, 1)[0].isnan().flatten().tolist() == [0, 0, 1, 0]
    after, expected = centroids.clone(), centroids.clone()
    simt.update_memory_(after, features, labels, None, 0.3, "hard")
    keep = [0, 1, 3]
    torch.ops.ise_fast.update_memory_(expected, features[keep], labels[keep], None, 0.3, "hard")
    assert_same([after], [expected])


def assert_close_losses(ours: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], tau: float) -> None:
    for mine, theirs in zip(ours, expected, strict=True):
        scale = float(theirs.abs().max()) + 0.1 if theirs.numel() else 1
        torch.testing.assert_close(mine, theirs, rtol=0, atol=4e-6 * scale * max(1.0, 0.05 / tau))


@pytest.mark.parametrize(
    ("rows", "groups", "d", "tau"), [(1, 1, 1, 0.05), (7, 5, 33, 0.05), (5, 300, 8, 0.01), (3, 9, 40, 0.5)]
)
def test_group_nce_loss(simt: Any, unit_rows: Rows, rows: int, groups: int, d: int, tau: float) -> None:
    """A third of the groups owns no row."""
    counts = torch.arange(groups) % 3 + (torch.arange(groups) == 0)
    sums = unit_rows(groups, d, seed=1) * counts[:, None].float()
    owners = counts.nonzero()[:, 0]
    labels = owners[torch.arange(rows) ** 2 % len(owners)]
    features = torch.nn.functional.normalize(sums[labels] + unit_rows(rows, d), dim=1)
    arguments = (features, sums, counts, labels, tau, 1e-6, True)
    expected = torch.ops.ise_fast.group_nce_loss(*arguments)
    assert_close_losses(simt.group_nce_loss(*arguments), expected, tau)
    backward = (torch.tensor(2.0), features, expected[1], "group_nce_loss")
    assert_same([simt.loss_backward(*backward)], [torch.ops.ise_fast.loss_backward(*backward)])
    for label in (-1, groups, int((counts == 0).long().argmax()) if groups > 1 else 2**40):
        labels[0] = label
        assert simt.group_nce_loss(features, sums, counts, labels, tau, 1e-6, True)[0].isnan()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("rows", "groups", "d"), [(1, 1, 1), (40, 7, 300), (0, 3, 2)])
def test_refresh_groups(simt: Any, unit_rows: Rows, rows: int, groups: int, d: int, dtype: torch.dtype) -> None:
    table, labels = unit_rows(rows, d), torch.arange(rows) ** 2 % groups
    order, counts = labels.argsort(stable=True), labels.bincount(minlength=groups)
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    touched = torch.tensor([0, groups - 1, 0])
    ours, expected = torch.full((2, groups, d), 7.0, dtype=dtype)
    simt.refresh_groups_(ours, table, indptr, order, touched)
    torch.ops.ise_fast.refresh_groups_(expected, table, indptr, order, touched)
    assert_same([ours], [expected])
    simt.refresh_groups_(ours, table, indptr, order, torch.tensor([-1, groups, 2**40]))
    assert_same([ours], [expected])


@pytest.mark.parametrize(
    ("rows", "all", "d", "s", "tau", "negatives", "smooth", "ranged"),
    [
        (1, 2, 1, 1, 0.05, 0, None, False),
        (1, 2, 1, 1, 0.05, 3, 0.3, True),
        (6, 40, 33, 3, 0.05, 0, 0.3, True),
        (6, 40, 33, 3, 0.05, 3, None, True),
        (5, 300, 8, 2, 0.01, 0, 0.3, False),
        (5, 270, 8, 2, 0.01, 400, 0.3, False),
        (2, 600, 8, 2, 0.01, 190, 0.3, False),
        (2, 600, 8, 2, 0.01, 210, 0.3, True),
    ],
)
def test_soft_nce_loss(
    simt: Any,
    unit_rows: Rows,
    rows: int,
    all: int,
    d: int,
    s: int,
    tau: float,
    negatives: int,
    smooth: float | None,
    ranged: bool,
) -> None:
    """Repeated and absent targets, two equal rows of the table, excluded rows."""
    table = unit_rows(all, d, seed=1)
    table[all - 1] = table[0]
    columns = (torch.arange(rows)[:, None] * 5 + torch.arange(s) ** 2 % 2 * 3) % all
    columns[-1, -1] = -1 if s > 1 else 0
    features = torch.nn.functional.normalize(table[columns[:, 0]] + 0.5 * unit_rows(rows, d), dim=1)
    weights = torch.linspace(0.1, 1, rows * s).reshape(rows, s)
    share = None if smooth is None else torch.linspace(0, smooth, rows)
    ranges = torch.stack([columns.clamp_min(0).amin(1), torch.full((rows,), all)], 1) if ranged else None
    if ranged:
        ranges[:, 0] = torch.where(columns < 0, 2**40, columns).amin(1)
    excluded = torch.full((rows, 2), -1)
    if all > 10:
        excluded[:, 0] = columns.amax(1) + 1
        excluded[1] = excluded[1, 0]
    arguments = (features, table, columns, weights, tau, share, negatives, ranges, excluded, True)
    assert_close_losses(simt.soft_nce_loss(*arguments), torch.ops.ise_fast.soft_nce_loss(*arguments), tau)


@pytest.mark.parametrize("negatives", [0, 2])
def test_soft_targets_out_of_range_are_nan_not_a_crash(simt: Any, unit_rows: Rows, negatives: int) -> None:
    f, v = unit_rows(3, 5), unit_rows(7, 5, seed=1)
    good = {
        "columns": torch.tensor([[0, 3], [2, -1], [6, 6]]),
        "weights": torch.ones(3, 2),
        "smooth": torch.zeros(3),
        "ranges": torch.tensor([[0, 7]] * 3),
        "excluded": torch.tensor([[-1], [4], [5]]),
    }

    def loss(**change: Tensor) -> Tensor:
        c, w, a, r, e = (good | change).values()
        return simt.soft_nce_loss(f, v, c, w, 0.1, a, negatives, r, e, True)[0]

    assert loss().isfinite()
    assert loss(columns=torch.tensor([[0, 7], [2, -1], [6, 6]])).isnan()
    assert loss(columns=torch.tensor([[0, -(2**40)], [2, -1], [6, 6]])).isnan()
    assert loss(columns=torch.tensor([[0, 1], [4, -1], [6, 6]])).isnan()  # excluded
    assert loss(weights=torch.tensor([[1.0, 1], [-1, 0], [1, 1]])).isnan()
    assert loss(weights=torch.tensor([[1.0, 1], [torch.nan, 0], [1, 1]])).isnan()
    assert loss(smooth=torch.tensor([0, 1.5, 0])).isnan()
    assert loss(ranges=torch.tensor([[0, 7], [2, 1], [0, 7]])).isnan()
    assert loss(ranges=torch.tensor([[0, 7], [0, 7], [0, 6]])).isnan()  # a target outside
    assert loss(ranges=torch.tensor([[0, 7], [-1, 7], [0, 8]])).isnan()
    assert loss(excluded=torch.tensor([[-1], [9], [5]])).isnan()


def test_nearest_centroids_of_denormal_similarity(simt: Any) -> None:
    g = torch.Generator().manual_seed(6)
    f, c = (3e-23 * torch.randn(n, 8, generator=g) for n in (12, 400))
    arguments = f[2:3].clone(), c, torch.tensor([2]), 5
    assert_same(simt.nearest_centroids(*arguments), torch.ops.ise_fast.nearest_centroids(*arguments))


@pytest.mark.parametrize("bad", ["feature", "centroid"])
def test_nearest_of_rows_with_nan_are_not_searched(simt: Any, unit_rows: Rows, bad: str) -> None:
    """Nothing is certain then: comparing with every centroid would take seconds for an answer that is NaN."""
    features, labels, centroids = head_batch(unit_rows, 4, 9, 33)
    (features if bad == "feature" else centroids)[2, 5] = torch.nan
    similarity, nearest = simt.nearest_centroids(features, centroids, labels, 2)
    rows = [2] if bad == "feature" else [0, 1, 2, 3]
    assert similarity[rows].isnan().all()
    assert nearest[rows].eq(0).all()
    if bad == "feature":
        keep = [0, 1, 3]
        expected = torch.ops.ise_fast.nearest_centroids(features[keep], centroids, labels[keep], 2)
        assert_same([similarity[keep], nearest[keep]], expected)


def neighbour_rows(kind: str, n: int, d: int) -> Tensor:
    generator = torch.Generator().manual_seed(n)
    x = torch.randn(n, d, generator=generator)
    if kind == "integers":
        return torch.randint(-1, 2, (n, d), generator=generator).float()
    return {
        "random": x,
        "copies": x[torch.arange(n) % max(1, min(n, 3))],
        "far": x + 1000,
        "huge": x * 1e37,
        "zeros": x * 0,
    }[kind]


KINDS = [
    ("random", "cosine"),
    ("integers", "euclidean"),
    ("copies", "cosine"),
    ("far", "sqeuclidean"),
    ("huge", "sqeuclidean"),
    ("zeros", "sqeuclidean"),
]


@pytest.mark.parametrize(("kind", "metric"), KINDS)
def test_knn(simt: Any, kind: str, metric: str) -> None:
    x = neighbour_rows(kind, 45, 5)  # 36 of 45 are candidates: certificate and redo
    y = torch.cat([neighbour_rows("random", 2, 5), x[:1]])
    for arguments in ((x, 2, y, metric, 2), (x[:7].clone(), 7, None, metric, 4), (x[:1].clone(), 1, None, metric, 0)):
        assert_same(simt.knn(*arguments)[:2], torch.ops.ise_fast.knn(*arguments)[:2])


def test_knn_redoes_what_it_cannot_certify(simt: Any) -> None:
    x = neighbour_rows("copies", 45, 5)
    assert simt.knn(x, 2, x[:2].clone(), "sqeuclidean", 0)[2] == 0  # 15 copies fit among the candidates
    assert simt.knn(x[:1].repeat(45, 1), 2, x[:1].repeat(3, 1), "sqeuclidean", 0)[2] == 3


def test_knn_among_near_duplicates_is_settled_by_the_second_search(simt: Any) -> None:
    """50 frames that float16 cannot tell apart: no more memory is asked for than their candidates need."""
    x = neighbour_rows("random", 60, 5)
    x[:50] = x[0] + 1e-5 * x[:50]
    arguments = (x, 3, x[5:8].clone(), "sqeuclidean", 0)
    found = simt.knn(*arguments)
    assert found[2] == 3
    assert_same(found[:2], torch.ops.ise_fast.knn(*arguments)[:2])


def test_knn_of_denormal_numbers(simt: Any) -> None:
    x = torch.zeros(40, 3)
    x[:, 0] = torch.arange(40, 0, -1) * 1e-41
    x[[20, 30, 35]] = 0
    for y in (None, torch.zeros(1, 3)):
        arguments = (x, 3, y, "sqeuclidean", 0)
        assert_same(simt.knn(*arguments)[:2], torch.ops.ise_fast.knn(*arguments)[:2])


def test_knn_of_many_neighbours(simt: Any) -> None:
    x = neighbour_rows("random", 1030, 2)
    arguments = (x, 1000, x[:1].clone(), "sqeuclidean", 0)
    assert_same(simt.knn(*arguments)[:2], torch.ops.ise_fast.knn(*arguments)[:2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("kind", "metric"), KINDS[:4])
def test_radius_graph(simt: Any, kind: str, metric: str, dtype: torch.dtype) -> None:
    eps = {"sqeuclidean": 5.0, "euclidean": 2.0, "cosine": 0.7}[metric]
    for n, d, radius, block in ((0, 2, eps, 0), (1, 1, eps, 0), (37, 5, eps, 16), (20, 33, 0.0, 0)):
        arguments = (neighbour_rows(kind, n, d).to(dtype), radius, metric, block)
        assert_same(simt.radius_graph(*arguments), torch.ops.ise_fast.radius_graph(*arguments))


def test_neighbours_refuse_bad_rows(simt: Any) -> None:
    x = torch.ones(4, 3)
    x[2, 1] = torch.nan
    with pytest.raises(ValueError, match="x: expected finite values, got NaN or infinity in row 2"):
        simt.knn(x, 2)
    with pytest.raises(ValueError, match="y: expected finite values, got NaN or infinity in row 2"):
        simt.knn(torch.ones(4, 3), 2, x)
    with pytest.raises(ValueError, match="x: expected finite values, got NaN or infinity in row 2"):
        simt.radius_graph(x, 1.0)


@pytest.mark.parametrize(
    ("kind", "n", "k", "d"),
    [("random", 1, 1, 1), ("random", 60, 7, 33), ("integers", 45, 9, 3), ("copies", 20, 5, 4), ("huge", 9, 3, 2)],
)
def test_kmeans(simt: Any, kind: str, n: int, k: int, d: int) -> None:
    """Ties, and centres that lose all their rows."""
    x = neighbour_rows(kind, n, d) * (1e-20 if kind == "huge" else 1)
    x = x.clamp(-1e37, 1e37)
    cpu = torch.ops.ise_fast
    draws = torch.rand(k, dtype=torch.float64, generator=torch.Generator().manual_seed(k))
    assert_same([simt.kmeans_start(x, draws)], [cpu.kmeans_start(x, draws)])
    centres = x[cpu.kmeans_start(x, draws)] + (0.1 if kind == "random" else 0)
    assert_same(simt.kmeans_step(x, centres), cpu.kmeans_step(x, centres))
    centres[-1] = 100 * centres[0].abs() + 1  # far from all
    for iterations in (1, 2, 50):
        assert_same(simt.kmeans(x, centres, iterations), cpu.kmeans(x, centres, iterations))


def test_kmeans_start_among_several_chunks(simt: Any) -> None:
    """Draws from the first row to the last, and copies of one row, which leave nothing to draw by."""
    x = neighbour_rows("random", 1100, 2)
    draws = torch.tensor([0.0, 0.0, 0.4, 0.93, 1 - 2**-53], dtype=torch.float64)
    assert_same([simt.kmeans_start(x, draws)], [torch.ops.ise_fast.kmeans_start(x, draws)])
    assert simt.kmeans_start(torch.ones(70, 2), draws[2:].flip(0)).tolist() == [69, 0, 1]


def test_kmeans_refuses_what_the_cpu_refuses(simt: Any) -> None:
    x = torch.ones(4, 3)
    x[2, 1] = torch.inf
    for operators in (simt, torch.ops.ise_fast):
        calls = [
            (operators.kmeans_step, torch.ones(2, 3)),
            (operators.kmeans, torch.ones(2, 3), 5),
            (operators.kmeans_start, torch.zeros(2, dtype=torch.float64)),
        ]
        for call, *arguments in calls:
            with pytest.raises(ValueError, match=r"^x: expected finite values, got NaN or infinity in row 2"):
                call(x, *arguments)
        with pytest.raises(ValueError, match=r"^centres: expected finite values, got NaN or infinity in row 2"):
            operators.kmeans_step(torch.ones(4, 3), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "clusters", "share"), [(1, 1, 1.0), (70, 30, 0.1), (40, 40, 0.5), (0, 1, 1.0)])
def test_merge_nearest(simt: Any, n: int, clusters: int, share: float, dtype: torch.dtype) -> None:
    """Distances on a grid: many ties."""
    distance = random_graph(n, share, n).to(dtype)
    stored = distance < 1
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), stored.sum(1).cumsum(0)])
    columns = stored.nonzero()[:, 1].to(torch.int32 if dtype == torch.float32 else torch.int64)
    labels = torch.arange(n) ** 2 % clusters * 3 + 2
    for penalty, merges in ((0.0, 5), (0.02, 1000), (0.1, 0)):
        arguments = (indptr, columns, distance[stored], labels, penalty, merges)
        assert_same(simt.merge_nearest(*arguments), torch.ops.ise_fast.merge_nearest(*arguments))
    if n > 1:
        labels[3] = -1
        with pytest.raises(ValueError, match=r"^labels: expected at least 0, got -1 at row 3"):
            simt.merge_nearest(indptr, columns, distance[stored], labels, 0.0, 1)


@pytest.mark.parametrize(
    ("kind", "n", "b", "d", "threshold", "least"),
    [
        ("random", 1, 1, 1, 0.5, 1),
        ("random", 70, 9, 3, 0.6, 10),
        ("random", 70, 9, 3, 0.6, 1),
        ("random", 300, 4, 2, 0.3, 2),
        ("copies", 40, 5, 4, 0.5, 3),
        ("zeros", 33, 3, 2, 0.5, 3),
        ("random", 20, 0, 3, 0.5, 3),
    ],
)
def test_cycle_positives(simt: Any, kind: str, n: int, b: int, d: int, threshold: float, least: int) -> None:
    table = torch.nn.functional.normalize(neighbour_rows(kind, n, d), dim=1)
    rows = torch.arange(b) * 7 % n
    arguments = (table, rows, threshold, least)
    assert_same(simt.cycle_positives(*arguments), torch.ops.ise_fast.cycle_positives(*arguments))


def test_cycle_positives_refuses_what_the_cpu_refuses(simt: Any) -> None:
    for operators in (simt, torch.ops.ise_fast):
        with pytest.raises(ValueError, match=r"^rows: expected 0 to 3, got 4 at row 1"):
            operators.cycle_positives(torch.eye(4), torch.tensor([0, 4, -1]), 0.5, 1)
        with pytest.raises(ValueError, match=r"^table: expected finite values, got NaN or infinity in row 0"):
            operators.cycle_positives(torch.eye(4) / 0, torch.tensor([0]), 0.5, 1)


@pytest.mark.parametrize(("rows", "n", "d", "share"), [(1, 3, 1, 1.0), (5, 70, 33, 0.1), (4, 301, 8, 1.0)])
def test_multi_label_loss(simt: Any, unit_rows: Rows, rows: int, n: int, d: int, share: float) -> None:
    table, features = unit_rows(n, d, seed=1), unit_rows(rows, d)
    table[n // 2 :] = table[: n - n // 2].clone()  # ties
    positives = [torch.tensor(sorted({i, 2 * i, n - 1})) for i in range(rows)]
    indptr = torch.tensor([0, *(len(p) for p in positives)]).cumsum(0)
    indices = torch.cat(positives).int()
    arguments = (features, table, indptr, indices, 5.0, share, True)
    expected = torch.ops.ise_fast.multi_label_loss(*arguments)
    assert_close_losses(simt.multi_label_loss(*arguments), expected, 0.05)
    for change in (indices.clone().fill_(n), indices.flip(0), -indices - 1):
        assert simt.multi_label_loss(features, table, indptr, change, 5.0, share, True)[0].isnan()
    assert simt.multi_label_loss(features, table, indptr + 1, indices, 5.0, share, True)[0].isnan()
    assert simt.multi_label_loss(features, table, indptr * 2**40, indices, 5.0, share, True)[0].isnan()
    assert simt.multi_label_loss(features, table, indptr, indices, 5.0, 1e-9, True)[0].isnan()


def retrieval(queries: int, gallery: int, levels: int, dtype: torch.dtype, people: int = 6) -> tuple[Tensor, ...]:
    """Distances of both signs on a grid of `levels` values: few levels, many ties; identities and cameras."""
    generator = torch.Generator().manual_seed(queries + gallery + levels)

    def draw(high: int, *size: int) -> Tensor:
        return torch.randint(high, size, generator=generator)

    distance = (draw(levels, queries, gallery) - levels // 2).to(dtype) / levels
    distance[distance == 0] *= draw(2, int((distance == 0).sum())) - 0.5  # zeros of both signs
    return distance, draw(people, queries), draw(people, gallery), draw(3, queries), draw(3, gallery)


@pytest.mark.parametrize(
    ("queries", "gallery", "levels", "dtype", "people"),
    [
        (1, 31, 4, torch.float32, 6),
        (37, 70, 3, torch.float64, 20),  # more queries than blocks; some without a match
        (5, 257, 1 << 20, torch.float32, 2),
        (2, 301, 1 << 30, torch.float64, 2),  # neighbouring values differ in float64 only
        (3, 1500, 50, torch.float32, 1),  # more matches than shared memory holds
    ],
)
def test_rank_metrics(simt: Any, queries: int, gallery: int, levels: int, dtype: torch.dtype, people: int) -> None:
    case = retrieval(queries, gallery, levels, dtype, people)
    for identities in (case[1:], (*case[1:3], None, None)):
        for max_rank in (1, 300):
            arguments = (case[0], *identities, max_rank)
            assert_same(simt.rank_metrics(*arguments), torch.ops.ise_fast.rank_metrics(*arguments))


def test_rank_metrics_refuses_what_the_cpu_refuses(simt: Any) -> None:
    distance, query_ids, gallery_ids, *_ = retrieval(9, 40, 100, torch.float32)
    for row, value in ((7, torch.nan), (3, -torch.inf)):
        distance[row, -1] = value
        with pytest.raises(ValueError, match=f"^distance: expected finite values, got NaN or infinity in row {row}"):
            simt.rank_metrics(distance, query_ids, gallery_ids, None, None, 5)
    for rows, columns in ((9, 40), (0, 40), (9, 0)):
        with pytest.raises(ValueError, match=r"^query_ids: expected at least one query with a match"):
            simt.rank_metrics(torch.zeros(rows, columns), query_ids[:rows], gallery_ids[:columns] + 6, None, None, 5)


def rows_to_re_rank(kind: str, n: int, d: int, k1: int) -> tuple[Tensor, Tensor]:
    """Rows and their k1 + 1 nearest neighbours, as `ise_fast.ops.re_ranking` finds them."""
    x = neighbour_rows(kind, n, d)
    return x, torch.ops.ise_fast.knn(x, k1 + 1)[1]


@pytest.mark.parametrize(
    ("kind", "queries", "gallery", "d", "k1", "k2", "weight", "block"),
    [
        ("random", 1, 1, 1, 1, 1, 0.3, 0),
        ("random", 1, 40, 33, 7, 3, 0.3, 16),
        ("random", 34, 1, 5, 6, 6, 0.3, 0),
        ("integers", 13, 54, 3, 20, 6, 0.3, 13),
        ("random", 10, 41, 3, 4, 2, 0.3, 4),  # tiles of 4 queries by 16 gallery rows
        ("copies", 5, 31, 4, 10, 4, 0.7, 0),  # some rows are crowded out of their own list
        ("far", 6, 21, 70, 8, 1, 1.0, 26),  # the filter cannot tell any two apart
        ("huge", 9, 24, 6, 5, 2, 0.0, 0),
        ("zeros", 3, 30, 2, 4, 2, 0.3, 0),  # the furthest row is at distance 0
    ],
)
def test_re_ranking(
    simt: Any, kind: str, queries: int, gallery: int, d: int, k1: int, k2: int, weight: float, block: int
) -> None:
    arguments = (*rows_to_re_rank(kind, queries + gallery, d, k1), queries, k2, weight)
    assert_same([simt.re_ranking(*arguments, block)], [torch.ops.ise_fast.re_ranking(*arguments)])


def test_re_ranking_without_queries_or_gallery(simt: Any) -> None:
    x, nn = rows_to_re_rank("random", 7, 3, 3)
    assert simt.re_ranking(x, nn, 0, 2, 0.3).shape == (0, 7)
    assert simt.re_ranking(x, nn, 7, 2, 0.3).shape == (7, 0)
    assert simt.re_ranking(x[:0], nn[:0], 0, 2, 0.3).shape == (0, 0)


def test_re_ranking_refuses_what_the_cpu_refuses(simt: Any) -> None:
    x, nn = rows_to_re_rank("random", 5, 3, 2)
    bad_row, bad_neighbour = x.clone(), nn.clone()
    bad_row[3, 1] = torch.nan
    bad_neighbour[2, 1] = 5
    for operators in (simt, torch.ops.ise_fast):
        with pytest.raises(ValueError, match=r"^x: expected finite values, got NaN or infinity in row 3"):
            operators.re_ranking(bad_row, nn, 2, 1, 0.3)
        with pytest.raises(ValueError, match=r"^nn: expected 0 to 4, got 5 in row 2"):
            operators.re_ranking(x, bad_neighbour, 2, 1, 0.3)
        with pytest.raises(ValueError, match=r"^queries: expected 0 to 5, got 6"):
            operators.re_ranking(x, nn, 6, 1, 0.3)


def test_every_operator_has_a_kernel_and_a_test_here() -> None:
    csrc, here = Path(__file__).parents[2] / "csrc", Path(__file__).parent
    tests = "".join((here / name).read_text() for name in KERNEL_TESTS)
    operators = re.findall(r'm\.def\(\s*"(\w+)\(', (csrc / "ops.cpp").read_text())
    kernels = "".join(source.read_text() for source in (csrc / "cuda").glob("*.cu"))
    assert "re_ranking" in operators
    assert [name for name in operators if f'm.impl("{name}"' not in kernels] == []
    assert [name for name in operators if f"simt.{name}(" not in tests] == []
