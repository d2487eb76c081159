"""The compiled memory update and the refresh of the Gram matrix."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from golden_data import load, names
from torch import Tensor

from ise_fast import ops, reference

UnitRows = Callable[..., Tensor]


@pytest.mark.parametrize("name", names("head"))
def test_golden(name: str, device: torch.device) -> None:
    g = load(name)
    rows = torch.cat([g["features"], g["supports"]]).to(device)
    labels = torch.cat([g["labels"], g["labels"].repeat_interleave(g["topk"])])
    centroids = g["memory_before"].clone().to(device)
    ops.update_memory_(centroids, rows, labels.to(device), g["momentum"], g["update"])
    torch.testing.assert_close(centroids.cpu(), g["memory_after"], rtol=0, atol=2e-7)
    untouched = [c for c in range(len(centroids)) if c not in set(labels.tolist())]
    assert torch.equal(centroids[untouched].cpu(), g["memory_before"][untouched])


@pytest.mark.parametrize("mode", ["hard", "momentum"])
@pytest.mark.parametrize(("b", "clusters", "d", "k"), [(1, 1, 1, 0), (33, 5, 31, 0), (64, 9, 257, 3), (31, 40, 8, 1)])
def test_error_budget(
    unit_rows: UnitRows, device: torch.device, mode: str, b: int, clusters: int, d: int, k: int
) -> None:
    before, rows = unit_rows(clusters, d, 1), unit_rows(b, d, 2)
    supports = unit_rows(b * k, d, 3).unflatten(0, (b, k)) if k else None
    y = torch.randint(clusters, (b,), generator=torch.Generator().manual_seed(4))
    all_rows = torch.cat([rows, supports.flatten(0, 1)]) if supports is not None else rows
    all_y = torch.cat([y, y.repeat_interleave(k)])
    truth, plain, ours = before.double(), before.clone(), before.clone().to(device)
    reference.update_memory_(truth, all_rows.double(), all_y, 0.2, mode)
    reference.update_memory_(plain, all_rows, all_y, 0.2, mode)
    apart = supports.to(device) if supports is not None else None
    torch.ops.ise_fast.update_memory_(ours, rows.to(device), y.to(device), apart, 0.2, mode)
    error, budget = (ours.cpu() - truth).abs().max(), (plain - truth).abs().max()
    assert error <= 2 * budget + 1e-7
    together = before.clone().to(device)
    ops.update_memory_(together, all_rows.to(device), all_y.to(device), 0.2, mode)
    assert together.equal(ours)


def test_hard_takes_the_first_on_ties_and_the_memory_as_it_was(device: torch.device) -> None:
    def rows_of(*degrees: float) -> Tensor:
        return torch.tensor([[math.cos(math.radians(a)), math.sin(math.radians(a))] for a in degrees], device=device)

    centroids = rows_of(0, 90)
    rows = rows_of(10, 30, -30, 20, 90)  # 30 and -30 degrees are equally far
    ops.update_memory_(centroids, rows, torch.tensor([0, 0, 0, 0, 1], device=device), 0.5)
    torch.testing.assert_close(centroids, rows_of(15, 90), rtol=0, atol=1e-7)
    centroids = rows_of(0, 90)
    labels = torch.tensor([0, 1, 0], device=device)
    ops.update_memory_(centroids, rows_of(40, 90, -40), labels, 0.5, "momentum")
    torch.testing.assert_close(centroids, rows_of(-10, 90), rtol=0, atol=1e-7)  # 0 -> 20 -> -10


def test_threads_strides_and_half_precision(unit_rows: UnitRows) -> None:
    before, rows, y = unit_rows(5, 66), unit_rows(64, 66, 1), torch.arange(64) % 5
    threads = torch.get_num_threads()
    try:
        for mode in ("hard", "momentum"):
            expected = before.clone()
            ops.update_memory_(expected, rows, y, 0.2, mode)
            for count in (1, 2, 4):
                torch.set_num_threads(count)
                wide = torch.zeros(5, 132)
                wide[:, ::2] = before
                ops.update_memory_(wide[:, ::2], rows.T.contiguous().T, y, 0.2, mode)
                assert wide[:, ::2].equal(expected)
                assert not wide[:, 1::2].any()
    finally:
        torch.set_num_threads(threads)
    half, single = before.clone(), before.clone()
    ops.update_memory_(half, rows.bfloat16(), y, 0.2)
    ops.update_memory_(single, rows.bfloat16().float(), y, 0.2)
    assert half.equal(single)


def test_no_rows_and_momentum_one(unit_rows: UnitRows, device: torch.device) -> None:
    before = unit_rows(3, 8).to(device)
    centroids = before.clone()
    nothing = torch.zeros(0, 8, device=device), torch.zeros(0, dtype=torch.int64, device=device)
    ops.update_memory_(centroids, *nothing, 0.2)
    assert centroids.equal(before)
    ops.update_memory_(centroids, unit_rows(2, 8, 1).to(device), torch.tensor([0, 2], device=device), 1.0, "momentum")
    torch.testing.assert_close(centroids, before, rtol=0, atol=1e-7)


def test_gram_rows_equal_the_whole(unit_rows: UnitRows, device: torch.device) -> None:
    before, after = unit_rows(131, 33, 1).to(device), unit_rows(131, 33, 1).to(device)
    changed = torch.tensor([130, 0, 7, 7, 64], device=device)
    after[changed] = unit_rows(5, 33, 2).to(device)[[0, 1, 2, 2, 4]]
    gram = torch.empty(131, 131, device=device)
    torch.ops.ise_fast.refresh_gram_(gram, before, None)
    torch.testing.assert_close(gram, before @ before.T, rtol=0, atol=5e-7)
    torch.ops.ise_fast.refresh_gram_(gram, after, changed)
    torch.testing.assert_close(gram, after @ after.T, rtol=0, atol=5e-7)
    assert gram.equal(gram.T)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 3e38])
def test_gram_is_refused_for_rows_beside_the_changed_ones(unit_rows: UnitRows, bad: float) -> None:
    c, gram = 2 * unit_rows(5, 8), torch.zeros(5, 5)
    c[3] = bad * c[1].sign()
    with pytest.raises(ValueError, match=r"^centroids: expected finite values .* for rows 3 and 1"):
        torch.ops.ise_fast.refresh_gram_(gram, c, torch.tensor([1]))
    assert not gram.any()


def test_opcheck(unit_rows: UnitRows, device: torch.device) -> None:
    c, f, y = unit_rows(5, 8).to(device), unit_rows(3, 8, 1).to(device), torch.tensor([0, 2, 2], device=device)
    for supports in (None, f[:, None].contiguous()):
        torch.library.opcheck(torch.ops.ise_fast.update_memory_.default, (c.clone(), f, y, supports, 0.2, "hard"))
    for labels in (None, y):
        torch.library.opcheck(torch.ops.ise_fast.refresh_gram_.default, (c @ c.T, c, labels))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"mode": "soft"}, ValueError, "mode: expected one of hard, momentum, got 'soft'"),
        ({"momentum": 1.1}, ValueError, r"momentum: expected a finite number in \[0, 1\]"),
        ({"labels": torch.tensor([2, 0])}, ValueError, "labels: expected 0 to 1, got 2 at row 0"),
        ({"rows": torch.tensor([[0.0, 1.0], [math.inf, 0.0]])}, ValueError, "rows: expected finite values, .* row 1"),
        ({"rows": torch.zeros(2, 3)}, ValueError, "rows: expected size 2 in dimension 1"),
        ({"rows": torch.zeros(2, 2, dtype=torch.int32)}, TypeError, "rows: expected a floating dtype, got int32"),
        ({"centroids": torch.eye(2).half()}, ValueError, "centroids: expected float32, got float16"),
    ],
)
def test_bad_input_leaves_the_memory_alone(change: dict[str, Any], error: type[Exception], message: str) -> None:
    centroids = torch.eye(2)
    good = {"centroids": centroids, "rows": torch.eye(2), "labels": torch.tensor([0, 1]), "momentum": 0.1}
    with pytest.raises(error, match=f"^{message}"):
        ops.update_memory_(**good | change)
    assert torch.equal(centroids, torch.eye(2))
