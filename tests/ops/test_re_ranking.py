from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from golden_data import load, names
from torch import Tensor

from ise_fast import ops, reference

UnitRows = Callable[..., Tensor]


def assert_same(found: Tensor, expected: Tensor) -> None:
    """exp is within one unit in the last place here and in the reference; what follows adds a few more."""
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", names("eval"))
def test_golden(name: str, device: torch.device) -> None:
    g = load(name)
    settings = (g["k1"], g["k2"], g["lambda_value"])
    found = ops.re_ranking(g["query"].to(device), g["gallery"].to(device), *settings).cpu()
    assert_same(found, g["reranked"])
    assert_same(found, reference.re_ranking(g["query"], g["gallery"], *settings))
    after = ops.rank_metrics(found, g["query_ids"], g["gallery_ids"], g["query_cams"], g["gallery_cams"])
    assert after.mAP == pytest.approx(g["reranked_mAP"], abs=1e-12)


@pytest.mark.parametrize(
    ("queries", "gallery", "d", "k1", "k2", "weight"),
    [
        (1, 1, 1, 1, 1, 0.3),
        (0, 9, 4, 3, 2, 0.3),
        (9, 0, 4, 3, 2, 0.3),
        (17, 33, 31, 7, 3, 0.0),
        (33, 257, 65, 20, 6, 1.0),
        (65, 70, 5, 134, 9, 0.3),
    ],
)
def test_equals_reference(
    unit_rows: UnitRows, device: torch.device, queries: int, gallery: int, d: int, k1: int, k2: int, weight: float
) -> None:
    rows = unit_rows(queries + gallery, d) * torch.linspace(1, 3, queries + gallery)[:, None]
    q, g = rows[:queries].to(device), rows[queries:].to(device)
    assert_same(ops.re_ranking(q, g, k1, k2, weight), reference.re_ranking(q, g, k1, k2, weight))


@pytest.mark.parametrize("k2", [1, 4])
def test_ties_and_duplicates(device: torch.device, k2: int) -> None:
    rows = torch.randint(-1, 2, (150, 3), generator=torch.Generator().manual_seed(0)).float().to(device)
    assert_same(ops.re_ranking(rows[:40], rows[40:], 12, k2), reference.re_ranking(rows[:40], rows[40:], 12, k2))
    same = torch.ones(60, 3, device=device)
    assert_same(ops.re_ranking(same[:20], same[20:], 10, k2), reference.re_ranking(same[:20], same[20:], 10, k2))


@pytest.mark.parametrize("scale", [1e-18, 1e18])
def test_scale_of_the_features_does_not_matter(unit_rows: UnitRows, device: torch.device, scale: float) -> None:
    rows = unit_rows(60, 8).to(device)
    assert_same(ops.re_ranking(scale * rows[:20], scale * rows[20:]), ops.re_ranking(rows[:20], rows[20:]))


def test_device_threads_blocks_and_strides_give_the_same_bits(unit_rows: UnitRows, device: torch.device) -> None:
    q, g = unit_rows(37, 66), unit_rows(150, 66, 1)
    on_cpu = ops.re_ranking(q, g)
    q, g = q.to(device), g.to(device)
    first = ops.re_ranking(q, g)
    assert first.device == q.device
    assert first.cpu().equal(on_cpu)
    assert ops.re_ranking(q.T.contiguous().T, g.repeat_interleave(2, 0)[::2]).equal(first)
    x = torch.cat([q, g])
    nn = ops.knn(x, 21).indices
    for block in (1, 13, 64):
        assert torch.ops.ise_fast.re_ranking(x, nn, 37, 6, 0.3, block).equal(first)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            assert ops.re_ranking(q, g).equal(first)
    finally:
        torch.set_num_threads(before)


def test_half_precision_is_converted(unit_rows: UnitRows, device: torch.device) -> None:
    q, g = unit_rows(9, 8).half().to(device), unit_rows(30, 8, 1).half().to(device)
    assert ops.re_ranking(q, g).equal(ops.re_ranking(q.float(), g.float()))


def test_opcheck(unit_rows: UnitRows, device: torch.device) -> None:
    x = unit_rows(20, 8).to(device)
    torch.library.opcheck(torch.ops.ise_fast.re_ranking.default, (x, ops.knn(x, 6).indices, 7, 3, 0.3))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"k1": 12}, ValueError, r"k1: expected an integer in \[1, 11\] \(one less than the 12 rows .*\), got 12"),
        ({"k2": 6}, ValueError, r"k2: expected an integer in \[1, 5\] \(k1\), got 6"),
        ({"lambda_value": 1.1}, ValueError, r"lambda_value: expected a finite number in \[0, 1\]"),
        ({"gallery": torch.ones(10, 4)}, ValueError, "gallery: expected 3 columns as in query"),
        ({"query": torch.full((2, 3), math.inf)}, ValueError, "query: expected finite values"),
        ({"gallery": torch.zeros(10, 3).double()}, TypeError, "gallery: expected dtype float32"),
    ],
)
def test_bad_input_names_the_argument(change: dict[str, object], error: type[Exception], message: str) -> None:
    good = {"query": torch.randn(2, 3), "gallery": torch.randn(10, 3), "k1": 5, "k2": 2, "lambda_value": 0.3}
    ops.re_ranking(**good)
    with pytest.raises(error, match=f"^{message}"):
        ops.re_ranking(**good | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: torch.zeros(4)}, "x: expected 2 dimensions"),
        ({0: torch.full((4, 2), math.nan)}, "x: expected finite values"),
        ({1: torch.zeros(4, 1, dtype=torch.int64)}, "nn: expected at least two columns"),
        ({1: torch.full((4, 3), 4)}, "nn: expected 0 to 3, got 4"),
        ({1: torch.full((4, 3), -1)}, "nn: expected 0 to 3, got -1"),
        ({1: torch.zeros(3, 3, dtype=torch.int64)}, "nn: expected size 4 in dimension 0"),
        ({2: 5}, "queries: expected 0 to 4, got 5"),
        ({2: -1}, "queries: expected 0 to 4, got -1"),
        ({3: 3}, "k2: expected 1 to 2, got 3"),
        ({4: math.nan}, "lambda_value: expected 0 to 1, got nan"),
    ],
)
def test_operator_checks_its_own_arguments(change: dict[int, object], message: str) -> None:
    good = [torch.eye(4)[:, :2], torch.arange(12).reshape(4, 3) % 4, 2, 2, 0.3]
    torch.ops.ise_fast.re_ranking(*good)
    with pytest.raises(ValueError, match=f"^{message}"):
        torch.ops.ise_fast.re_ranking(*[change.get(i, value) for i, value in enumerate(good)])
