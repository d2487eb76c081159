"""The building blocks of csrc/cuda (topk, reduce, hash, cub, gemm) and the header's CUDA vocabulary, one by one."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from simt.build import VARIANT
from torch import Tensor

WARP = 32


@pytest.fixture
def blocks(simt: Any, pretend: Callable[..., None]) -> Any:
    """torch.ops.ise_fast_blocks (blocks.cu), under several schedules."""
    pretend()  # one device: these are no operators, which would see to it that their tensors' is current
    return torch.ops.ise_fast_ptx_blocks if os.environ.get(VARIANT) == "ptx" else torch.ops.ise_fast_blocks


def integers(low: int, high: int, size: tuple[int, ...], dtype: torch.dtype = torch.int64, seed: int = 0) -> Tensor:
    return torch.randint(low, high, size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize(("n", "k"), [(1, 1), (31, 5), (192, 192), (193, 64), (3000, 320), (3000, 1)])
@pytest.mark.parametrize("order", ["random", "falling", "rising"])
def test_block_smallest(blocks: Any, n: int, k: int, order: str) -> None:
    keys = torch.randperm(10 * n, generator=torch.Generator().manual_seed(n))[:n]
    if order != "random":  # falling: every key passes the threshold
        keys = keys.sort(descending=order == "falling").values
    assert blocks.smallest(keys, k).tolist() == keys.sort().values[:k].tolist()


def test_fewer_keys_than_asked(blocks: Any) -> None:
    assert blocks.smallest(torch.tensor([7, 3]), 4).tolist() == [3, 7, -1, -1]  # -1 is kWorstKey


def tree_sum(values: list[float]) -> float:
    while len(values) > 1:
        half = len(values) // 2
        values = [a + b for a, b in zip(values[:half], values[half:], strict=True)]
    return values[0]


def test_reductions_follow_the_documented_tree(blocks: Any) -> None:
    values = torch.randn(2 * WARP, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 1e3
    warps = [tree_sum(values[:WARP].tolist()), tree_sum(values[WARP:].tolist())]
    out = blocks.reduce(values)
    assert out[:, 0].tolist() == [warps[0] + warps[1]] * (2 * WARP)
    assert out[:, 1].tolist() == [values.min().item()] * (2 * WARP)
    assert out[:, 2].tolist() == [warps[0]] * WARP + [warps[1]] * WARP
    starts = [WARP * (t // WARP) for t in range(2 * WARP)]
    assert out[:, 3].tolist() == [sum(range(start, t)) for t, start in enumerate(starts)]


@pytest.mark.parametrize(("distinct", "slots"), [(1, 1), (5, 8), (40, 64), (100, 256)])
def test_hash_table(blocks: Any, distinct: int, slots: int) -> None:
    keys = integers(0, 10**6, (distinct,), torch.int32)[integers(0, distinct, (300,))]
    inserted, found = blocks.hash(keys, slots)
    assert torch.equal(inserted, found)
    slot_of = dict(zip(keys.tolist(), inserted.tolist(), strict=True))
    assert all(slot_of[key] == slot for key, slot in zip(keys.tolist(), inserted.tolist(), strict=True))
    assert len(set(slot_of.values())) == len(slot_of)
    assert all(0 <= slot < slots for slot in slot_of.values())


def test_full_hash_table_says_so(blocks: Any) -> None:
    inserted, _ = blocks.hash(torch.arange(10, dtype=torch.int32), 8)
    assert sorted(inserted.tolist()) == [-1, -1, *range(8)]


def test_hash_table_gives_up_where_it_is_crowded(blocks: Any) -> None:
    """Keys that all want the same slot: the table does not search all of it for a free one."""
    keys = torch.arange(10**6)
    start = (keys * 2654435769 % 2**32 >> 12) % 1024  # the slot that a key wants
    crowd = keys[start == start[0]][:40].int()
    inserted, found = blocks.hash(crowd, 1024)
    assert (inserted == -1).sum() == 40 - 32
    assert found.equal(inserted)


@pytest.mark.parametrize("bits", [(0, 64), (4, 12)])
def test_sort_is_stable_and_sums_are_exclusive(blocks: Any, bits: tuple[int, int]) -> None:
    keys, values = integers(0, 5000, (1000,)), torch.arange(1000, dtype=torch.int32)
    first, last = bits
    order = sorted(range(1000), key=lambda i: keys[i].item() >> first & (1 << (last - first)) - 1)
    sorted_keys, carried, sums = blocks.cub(keys, values, first, last)
    assert carried.tolist() == order
    assert torch.equal(sorted_keys, keys[order])
    assert sums.tolist() == list(itertools.accumulate(keys[:-1].tolist(), initial=0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_product(blocks: Any, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(5, 33, generator=generator).to(dtype)
    b = torch.randn(7, 33, generator=generator).to(dtype)
    torch.testing.assert_close(blocks.product(a, b).double(), a.double() @ b.double().T, rtol=1e-5, atol=1e-5)


def test_half_types_round_as_torch_does(blocks: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    exponents = torch.rand(4000, generator=generator) * 80 - 50
    values = torch.randn(4000, generator=generator) * 2**exponents
    special = [0.0, -0.0, 1.0, 65504.0, 65519.9, 65520.0, 2**-24, 2**-25, 2**-14, 3.4e38, torch.inf, -torch.inf]
    values = torch.cat([values, torch.tensor(special), 1 + torch.arange(4096) * 2.0**-12])  # the last: ties
    as_half, as_bfloat16 = blocks.round_trip(values)
    assert torch.equal(as_half, values.half().float())
    assert torch.equal(as_bfloat16, values.bfloat16().float())
    assert all(torch.isnan(out).all() for out in blocks.round_trip(torch.tensor([torch.nan])))


def test_collectives(blocks: Any) -> None:
    values = integers(0, 6, (WARP,), torch.int32)
    v = values.tolist()
    lanes = range(WARP)
    masks = [sum((v[lane] == x) << lane for lane in lanes) for x in v]
    expected = torch.tensor(
        [
            [
                sum((v[other] % 2) << other for other in lanes),
                masks[lane],
                sum(v[:10]) if lane < 10 else min(v[10:]),
                v[lane // 8 * 8 + 3],
                v[lane - 2] if lane % 16 >= 2 else v[lane],
                v[lane + 5] if lane + 5 < WARP else v[lane],
                v[lane ^ 7],
                2 * all(x < 5 for x in v) + any(x < 5 for x in v),
            ]
            for lane in lanes
        ]
    )
    assert torch.equal(blocks.collectives(values), expected.int())


def test_lock_free_union(blocks: Any) -> None:
    edges = integers(0, 200, (150, 2), torch.int32)
    parent = torch.arange(200, dtype=torch.int32)
    blocks.unite(edges, parent)
    for _ in range(200):
        parent = parent[parent.long()]
    graph = coo_matrix(([1] * 150, edges.T.numpy()), shape=(200, 200))
    _, component = connected_components(graph, directed=False)
    smallest = {c: i for i, c in reversed(list(enumerate(component)))}
    assert parent.tolist() == [smallest[c] for c in component]
