"""The operators on other devices than the usual one (little memory, two of them, scratch in parts), and large inputs.

The host poses as each (pretended.h); the answers stay the same.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from simt.test_kernels import crowded
from stopping import interrupt
from torch import Tensor

from ise_fast import _C

Rows = Callable[..., Tensor]
Pretend = Callable[..., None]
Case = tuple[str, tuple[Any, ...]]


@pytest.fixture
def simt(set_schedule: Callable[[int], None]) -> Any:
    """torch.ops.ise_fast_simt under one schedule: here it is the device that varies."""
    set_schedule(0)
    return torch.ops.ise_fast_simt


def head(unit_rows: Rows, rows: int, clusters: int, d: int) -> tuple[Tensor, Tensor, Tensor]:
    labels, centroids = torch.arange(rows) ** 2 % clusters, unit_rows(clusters, d, 1)
    return torch.nn.functional.normalize(centroids[labels] + 0.5 * unit_rows(rows, d), dim=1), labels, centroids


def assert_same(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True)


def test_the_device_of_the_tensors_is_current_inside_an_operator_only(
    simt: Any, pretend: Pretend, library: ctypes.CDLL, unit_rows: Rows
) -> None:
    """All of test_kernels.py runs with tensors on device 1 under its schedule 1; here what that would find."""
    x = unit_rows(20, 3)
    pretend(of_tensors=1)
    assert_same(simt.knn(x, 2)[:2], torch.ops.ise_fast.knn(x, 2)[:2])
    assert library.simt_current_device() == 0
    with pytest.raises(RuntimeError, match="smallest_kernel: device 0 is current, the tensors are on device 1"):
        torch.ops.ise_fast_blocks.smallest(torch.arange(5), 2)


def test_tiles_and_ranges_shrink_when_memory_is_short(simt: Any, pretend: Pretend, unit_rows: Rows) -> None:
    """A GPU of 64 GB on which no more than some kilobytes can be had at once."""
    x, many = unit_rows(300, 5), unit_rows(120, 5)
    cases: list[tuple[Case, int]] = [
        (("knn", (x, 4, x[:20].clone())), 20_000),  # a tile of all 20 queries: 24,000 bytes
        (("radius_graph", (many, 0.5)), 20_000),  # of all rows: 57,600
        (("re_ranking", (many, torch.ops.ise_fast.knn(many, 4)[1], 50, 2, 0.3)), 50_000),  # mixed at once: 72,000
        (("k_reciprocal_encoding", (many, torch.ops.ise_fast.knn(many, 21)[1], 20)), 150_000),
    ]
    for (name, arguments), most in cases:
        pretend(memory=64 << 30, largest_allocation=most, most_numbers=20_000 if name == "radius_graph" else 100)
        found, expected = (getattr(operators, name)(*arguments) for operators in (simt, torch.ops.ise_fast))
        if isinstance(found, Tensor):
            found, expected = (found,), (expected,)
        assert_same(found[:2], expected[:2])


def test_a_graph_of_several_tiles_is_mirrored_in_parts(simt: Any, pretend: Pretend) -> None:
    """So many tiles, and so few entries that are sorted at once."""
    x = torch.rand(130, 2, generator=torch.Generator().manual_seed(0))
    expected = torch.ops.ise_fast.radius_graph(x, 0.1)
    assert len(expected[1]) > 130 + 2 * 150
    for block, most in ((130, 1), (30, 2**62), (30, 1), (30, 100)):
        pretend(most_numbers=most)
        assert_same(simt.radius_graph(x, 0.1, "euclidean", block), expected)


def test_sets_that_do_not_fit_into_shared_memory_are_sorted(simt: Any, pretend: Pretend, unit_rows: Rows) -> None:
    """Sets of at most 15 x 10 members, expanded by rows of at most 61."""
    x = crowded(unit_rows, 61, 31)
    nn = torch.cdist(x, x).topk(15, largest=False).indices
    nn[3:5, 7] = nn[3:5, 6]  # named twice
    for k2 in (1, 6):
        expected = torch.ops.ise_fast.k_reciprocal_encoding(x, nn, k2)
        for most in (2**62, 60, 1):  # the expansion alone is bounded by the rows: 61 members
            pretend(most_numbers=most)
            assert_same(simt.k_reciprocal_encoding(x, nn, k2), expected)


def test_sets_are_sorted_in_several_ranges_of_rows(simt: Any, pretend: Pretend, unit_rows: Rows) -> None:
    """More entries than the scratch that the pretended device allows at once."""
    x = crowded(unit_rows, 100, 4)
    nn = torch.cdist(x, x).topk(40, largest=False).indices
    expected = torch.ops.ise_fast.k_reciprocal_encoding(x, nn, 20)
    assert torch.ops.ise_fast.k_reciprocal_encoding(x, nn, 1)[1].numel() * 20 > 2 * (64 << 20) // 64 // 64
    pretend(most_numbers=1)
    assert_same(simt.k_reciprocal_encoding(x, nn, 20), expected)


def test_pairs_of_hubs(simt: Any, pretend: Pretend) -> None:
    """Rows 0 to 2 share a column with every row: beyond the first table of 64 slots, within the second one of 4,096 or
    beyond that too; their pairs are ranked or sorted."""
    n = 150
    weights = torch.diag(torch.linspace(0.3, 0.9, n))
    weights[:3] = torch.linspace(0.5, 1.5, 3 * n).view(3, n) / n
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), weights.gt(0).sum(1).cumsum(0)])
    v = indptr, weights.nonzero()[:, 1].int(), weights[weights > 0]
    for eps, begin, end in ((0.5, 0, n), (0.999, 0, n), (0.999, 1, 90)):
        expected = torch.ops.ise_fast.jaccard_graph(*v, eps, begin, end)
        for most in (2**62, 200, 64, 1):
            pretend(most_numbers=most)
            assert_same(simt.jaccard_graph(*v, eps, begin, end), expected)


def test_blocks_below_the_diagonal_have_nothing_to_do(simt: Any) -> None:
    x = torch.rand(1056, 1, generator=torch.Generator().manual_seed(0))
    assert_same(simt.radius_graph(x, 1e-4), torch.ops.ise_fast.radius_graph(x, 1e-4))


def test_a_row_with_more_pairs_than_its_block_lists_at_once(simt: Any) -> None:
    """Every fourth of 8,400 rows, beyond what the block's threads read of a row at once."""
    x = torch.arange(8400).remainder(4)[:, None].float()
    arguments = (x, torch.full((1, 1), 0.25), 0.5, "euclidean", False)
    found = simt.radius_pairs(*arguments)
    assert len(found[1]) == 2100
    assert_same(found, torch.ops.ise_fast.radius_pairs(*arguments))


def test_out_of_memory_is_torchs_own_error(simt: Any, pretend: Pretend, library: ctypes.CDLL, unit_rows: Rows) -> None:
    """The C interface keeps neither its type nor its text: Python asks once more and raises what torch says."""
    library.ise_fast_set_memory_hook.argtypes = [ctypes.c_void_p]
    library.ise_fast_set_memory_hook(_C.memory_hook())
    x = unit_rows(300, 5)
    pretend(largest_allocation=1000)
    with pytest.raises(torch.OutOfMemoryError, match=r"^out of memory: asked for 0.00 GiB \(2400 bytes\)"):
        simt.knn(x, 4, x[:20].clone())
    pretend()
    huge = torch.zeros(1, 1).expand(2**24, 2**22)  # contiguous it would take 256 TiB
    with pytest.raises(RuntimeError, match=r"DefaultCPUAllocator: .* you tried to allocate 281474976710656 bytes"):
        simt.nearest_centroids(huge, huge[:2], torch.zeros(1, dtype=torch.int64).expand(2**24), 1)
    library.ise_fast_set_memory_hook(None)
    pretend(largest_allocation=1000)
    with pytest.raises(MemoryError, match=r"^out of memory: asked for 0.00 GiB \(2400 bytes\)"):
        simt.knn(x, 4, x[:20].clone())


def test_a_signal_is_heard_between_launches(simt: Any, library: ctypes.CDLL, unit_rows: Rows) -> None:
    """All launches go through one function."""
    library.ise_fast_set_interrupt_check.argtypes = [ctypes.c_void_p]
    library.ise_fast_set_interrupt_check(_C.interrupt_hook())
    x, draws = unit_rows(2000, 3), torch.linspace(0, 0.9, 2000).double()
    try:
        interrupt(lambda: simt.kmeans_start(x, draws), "kmeans_start")
    finally:
        library.ise_fast_set_interrupt_check(None)


@pytest.mark.parametrize("k", [0, 2])
@pytest.mark.parametrize("with_gram", [False, True])
def test_losses_in_parts(simt: Any, pretend: Pretend, unit_rows: Rows, k: int, with_gram: bool) -> None:
    """Few features and centroids at once, choices of few features at once; tau for the online softmax."""
    features, labels, centroids = head(unit_rows, 7, 13, 6)
    for tau in (0.05, 0.01):
        for most in (20, 80, 91):  # no halves; not all products; 91 = 7 x 13: all products, and few choices
            pretend(most_numbers=most)
            if k == 0:
                nce = (features, labels, centroids, tau, True)
                found, expected = simt.cluster_nce_loss(*nce), torch.ops.ise_fast.cluster_nce_loss(*nce)
            else:
                gram = centroids @ centroids.T if with_gram else None
                ise = (features, labels, centroids, 0.25, k, tau, 0.6, 0.5, gram, True)
                found, expected = simt.ise_loss(*ise), torch.ops.ise_fast.ise_loss(*ise)
            for ours, right in zip(found, expected, strict=True):
                scale = float(right.abs().max()) + 0.1
                torch.testing.assert_close(ours, right, rtol=0, atol=4e-6 * scale * 0.05 / tau)


def test_preserving_gradient_of_several_parts_and_blocks_of_columns(
    simt: Any, pretend: Pretend, unit_rows: Rows
) -> None:
    """270 columns: the last block of a row has threads without one, while another block adds to the row's first."""
    features, labels, centroids = head(unit_rows, 12, 4, 270)
    arguments = (features, labels, centroids, 0.25, 1, 0.05, 0.6, 0.5, centroids @ centroids.T, True)
    pretend(most_numbers=60)  # choices of five features at once
    ours, expected = simt.ise_loss(*arguments)[5], torch.ops.ise_fast.ise_loss(*arguments)[5]
    torch.testing.assert_close(ours, expected, rtol=0, atol=4e-6 * (float(expected.abs().max()) + 0.1))


def test_filters_and_losses_of_other_methods_in_parts(simt: Any, pretend: Pretend, unit_rows: Rows) -> None:
    """Tables that are too large to be rounded, and those that are split a tile at a time."""
    features, labels, table = head(unit_rows, 7, 29, 6)
    indptr, columns, weights = torch.arange(8), labels[:, None], torch.ones(7, 1)
    share = torch.full((7,), 0.3)
    calls = {
        "nearest_centroids": (features, table, labels, 3),
        "kmeans_step": (table, features),
        "cycle_positives": (table, torch.arange(0, 29, 5), 0.2, 3),
        "multi_label_loss": (features, table, indptr, labels.int(), 5.0, 0.2, True),
        "group_nce_loss": (features, table, torch.full((29,), 1), labels, 0.05, 1e-6, True),
        "soft_nce_loss": (features, table, columns, weights, 0.05, share, 0, None, None, True),
    }
    for most in (20, 91, 29 * 6):
        pretend(most_numbers=most)
        for name, given in calls.items():
            expected = getattr(torch.ops.ise_fast, name)(*given)
            for found, right in zip(getattr(simt, name)(*given), expected, strict=True):
                scale = float(right.abs().max()) + 0.1
                torch.testing.assert_close(found, right, rtol=0, atol=4e-6 * scale, msg=f"{name}, {most} numbers")


def test_a_list_of_candidates_that_is_too_short_leaves_a_doubt(simt: Any, pretend: Pretend) -> None:
    """Three blocks of near rows; those of the first are nearer to all of these than to each other."""
    x = 0.5 * torch.randn(160, 12, generator=torch.Generator().manual_seed(0))
    x[:40] = 20 * torch.nn.functional.normalize(x[:40], dim=1)
    for block in (1, 2, 3):
        x[40 * block : 40 * block + 40, block] += 3
    # Room for all, and for twice the candidates: 36 of the first block and 80 of the next two come
    for most_numbers, in_doubt in ((2**62, 0), (1, 40)):
        pretend(most_numbers=most_numbers)
        *found, redone = simt.knn(x, 2, None, "sqeuclidean", 40)
        assert_same(found, torch.ops.ise_fast.knn(x, 2, None, "sqeuclidean", 0)[:2])
        assert redone == in_doubt


def test_lists_of_candidates_that_a_device_cannot_hold_are_not_made(simt: Any, pretend: Pretend) -> None:
    """The whole square takes less."""
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(2))
    expected = torch.ops.ise_fast.knn(x, 2, None, "cosine", 0)[:2]
    pretend(memory=64 * 2 * 50 * 50 - 1, largest_allocation=50 * 50 * 8 - 1)
    assert_same(simt.knn(x, 2, None, "cosine", 16)[:2], expected)


def test_knn_of_more_equal_rows_than_any_list_of_candidates_holds(simt: Any) -> None:
    """The second search leaves a doubt, too; only the third compares with everything."""
    x = torch.ones(3100, 1)
    distances, indices, redone = simt.knn(x, 2, x[:1].clone(), "sqeuclidean", 1)
    assert redone == 1
    assert indices.tolist() == [[0, 1]]
    assert distances.eq(0).all()


def test_softmax_whose_partial_sums_come_near_the_end_of_float32(simt: Any) -> None:
    """Each thread adds 64 terms e^83.9 x 2: without the online softmax they are infinite."""
    centroids = torch.ones(64 * 256 + 1, 1)
    centroids[0] = -1
    feature, label, tau = torch.ones(1, 1), torch.zeros(1, dtype=torch.int64), 2.002 / 84
    for operators in (torch.ops.ise_fast, simt):
        loss, gradient = operators.cluster_nce_loss(feature, label, centroids, tau, True)
        assert loss.item() == pytest.approx(2 / tau + math.log(64 * 256), rel=1e-6)
        assert gradient.abs().max() < 1e-3 / tau  # a feature of one column has no direction to move in
