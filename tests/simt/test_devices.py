"""The kernels on other devices than the usual one: little memory, many multiprocessors, two of them, scratch in parts.

The host poses as each (pretended.h); the answers stay the same.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

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


@pytest.fixture
def cases(unit_rows: Rows) -> list[Case]:
    """Every operator with small arguments."""
    cpu = torch.ops.ise_fast
    x = torch.nn.functional.normalize(unit_rows(10, 6).repeat(4, 1) + 0.5 * unit_rows(40, 6, 1), dim=1)
    near = cpu.knn(x, 7)[1]
    v = cpu.k_reciprocal_encoding(x, near, 3)
    features, labels, centroids = head(unit_rows, 9, 5, 6)
    nearest = cpu.nearest_centroids(features, centroids, labels, 2)[1]
    supports, norm = cpu.support_samples(features, centroids, labels, nearest, 0.25)
    ise = (features, labels, centroids, 0.25, 2, 0.05, 0.6, 0.1, centroids @ centroids.T, True)
    ids, one = torch.arange(40) % 6, torch.ones(())
    return [
        ("knn", (x, 4)),
        ("radius_graph", (x, 1.0)),
        ("k_reciprocal_encoding", (x, near, 3)),
        ("jaccard_distance", v),
        ("jaccard_graph", (*v, 0.7, 0, 40)),
        ("dbscan", (*cpu.jaccard_graph(*v, 0.7, 0, 40), 0.6, 4)),
        ("dbscan_dense", (cpu.jaccard_distance(*v), 0.6, 4)),
        ("nearest_centroids", (features, centroids, labels, 2)),
        ("support_samples", (features, centroids, labels, nearest, 0.25)),
        ("support_samples_backward", (supports.flip(0), features, supports, norm)),
        ("ise_loss", ise),
        ("ise_loss_backward", (one, one, one, features, *cpu.ise_loss(*ise)[4:], 0.1)),
        ("cluster_nce_loss", (features, labels, centroids, 0.05, True)),
        ("cluster_nce_loss_backward", (one, features, features)),
        ("update_memory_", (centroids.clone(), features, labels, supports, 0.2, "hard")),
        ("refresh_gram_", (torch.zeros(5, 5), centroids, labels)),
        ("rank_metrics", (2 - 2 * x[:10] @ x[10:].T, ids[:10], ids[10:], None, None, 5)),
        ("re_ranking", (x, near, 10, 3, 0.3)),
    ]


def call(operators: Any, name: str, arguments: tuple[Any, ...]) -> list[Tensor]:
    """The tensors that an operator returns, or the one that it writes to."""
    copies = [a.clone() if isinstance(a, Tensor) else a for a in arguments]
    out = getattr(operators, name)(*copies)
    return [copies[0]] if out is None else [out] if isinstance(out, Tensor) else list(out)


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True)


def test_every_operator_works_on_the_device_of_its_tensors(
    simt: Any, pretend: Pretend, library: ctypes.CDLL, cases: list[Case]
) -> None:
    """Kernels, fills, products and questions go to device 1 while the caller's current device is 0, and stays so."""
    assert {name for name, _ in cases} == {
        full.split("::")[1].split(".")[0]
        for full in torch._C._dispatch_get_all_op_names()
        if full.startswith("ise_fast_simt::")
    }
    for name, arguments in cases:
        expected = call(simt, name, arguments)
        pretend(of_tensors=1)
        assert_same(call(simt, name, arguments), expected)
        assert library.simt_current_device() == 0
        pretend()


def test_a_launch_on_another_device_is_seen(simt: Any, pretend: Pretend) -> None:
    pretend(of_tensors=1)
    with pytest.raises(RuntimeError, match="smallest_kernel: device 0 is current, the tensors are on device 1"):
        torch.ops.ise_fast_blocks.smallest(torch.arange(5), 2)


@pytest.mark.parametrize("multiprocessors", [1, 132])
def test_number_of_multiprocessors(simt: Any, pretend: Pretend, cases: list[Case], multiprocessors: int) -> None:
    for name, arguments in cases:
        if name in ("dbscan_dense", "jaccard_graph", "rank_metrics"):  # those whose grids depend on it
            expected = call(simt, name, arguments)
            pretend(multiprocessors=multiprocessors)
            assert_same(call(simt, name, arguments), expected)


def test_rows_beyond_the_grid(simt: Any, pretend: Pretend, cases: list[Case]) -> None:
    """gridDim.y and z end at 65,535 blocks; a device where they end at 4 shows who puts rows there."""
    for name, arguments in cases:
        pretend(most_blocks_across=4)
        call(simt, name, arguments)


def test_tiles_and_ranges_shrink_when_memory_is_short(simt: Any, pretend: Pretend, unit_rows: Rows) -> None:
    """A GPU of 64 GB on which no more than some kilobytes can be had at once."""
    x, many = unit_rows(300, 5), unit_rows(120, 5)
    cases: list[tuple[Case, int]] = [
        (("knn", (x, 4, x[:20].clone())), 20_000),  # a tile of all 20 queries: 24,000 bytes
        (("radius_graph", (many, 0.5)), 20_000),  # of all rows: 57,600
        (("k_reciprocal_encoding", (many, torch.ops.ise_fast.knn(many, 21)[1], 20)), 150_000),
    ]
    for (name, arguments), most in cases:
        expected = call(torch.ops.ise_fast, name, arguments)
        pretend(memory=64 << 30, largest_allocation=most)
        assert_same(call(simt, name, arguments)[:2], expected[:2])
    pretend(largest_allocation=1000)  # less than what every row needs a number of
    with pytest.raises(RuntimeError, match=r"out of memory: asked for 2400 bytes on device"):
        simt.knn(x, 4, x[:20].clone())


@pytest.mark.parametrize("k", [0, 2])
@pytest.mark.parametrize("with_gram", [False, True])
def test_losses_in_parts(simt: Any, pretend: Pretend, unit_rows: Rows, k: int, with_gram: bool) -> None:
    """Few features and centroids at once, choices of few features at once; tau for the online softmax."""
    features, labels, centroids = head(unit_rows, 7, 13, 6)
    for tau in (0.05, 0.01):
        for most in (20, 91):  # 91 = 7 x 13: all products are held, and few choices
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
