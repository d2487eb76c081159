"""The memory module: reset, update, the kept Gram matrix, saving and moving."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from golden_data import load, names
from torch import Tensor

from ise_fast.nn import ClusterMemory, cluster_memory
from ise_fast.reference import update_memory_

UnitRows = Callable[..., Tensor]


def assert_gram_is_fresh(memory: ClusterMemory) -> None:
    exact = memory.centroids.double() @ memory.centroids.double().T
    assert memory.gram is not None
    torch.testing.assert_close(memory.gram.double(), exact, rtol=0, atol=4e-7)


@pytest.mark.parametrize("name", names("head"))
def test_golden(name: str) -> None:
    g = load(name)
    memory = ClusterMemory(g["features"].shape[1], g["momentum"], g["update"])
    memory.reset(g["memory_before"])
    assert_gram_is_fresh(memory)
    memory.update(g["features"], g["labels"], g["supports"].unflatten(0, (-1, g["topk"])))
    torch.testing.assert_close(memory.centroids, g["memory_after"], rtol=0, atol=2e-7)
    assert_gram_is_fresh(memory)


def test_reset_copies_and_makes_rows_unit(device: torch.device) -> None:
    memory = ClusterMemory(2).to(device)
    means = torch.tensor([[3.0, 0.0], [0.0, 0.5], [-2.0, 0.0]], dtype=torch.float64, requires_grad=True)
    memory.reset(means)
    assert memory.centroids.tolist() == [[1, 0], [0, 1], [-1, 0]]
    assert memory.centroids.dtype == torch.float32
    assert not memory.centroids.requires_grad
    memory.update(torch.tensor([[0.0, 1.0]], device=device), torch.tensor([0], device=device))
    assert means.tolist() == [[3, 0], [0, 0.5], [-2, 0]]


@pytest.mark.parametrize("mode", ["hard", "momentum"])
def test_features_come_before_supports(unit_rows: UnitRows, device: torch.device, mode: str) -> None:
    f, s, c = unit_rows(6, 8, 1), unit_rows(12, 8, 2), unit_rows(4, 8, 3)
    y = torch.tensor([3, 0, 1, 0, 3, 3])
    memory = ClusterMemory(8, 0.3, mode).to(device)
    memory.reset(c)
    expected = memory.centroids.cpu().clone()
    update_memory_(expected, torch.cat([f, s]), torch.cat([y, y.repeat_interleave(2)]), 0.3, mode)
    memory.update(f.to(device), y.to(device), s.unflatten(0, (6, 2)).to(device))
    torch.testing.assert_close(memory.centroids.cpu(), expected, rtol=0, atol=2e-7)


def test_gram_follows_every_change(unit_rows: UnitRows, device: torch.device) -> None:
    memory = ClusterMemory(16).to(device)
    for clusters in (5, 9):
        memory.reset(unit_rows(clusters, 16, clusters))
        assert_gram_is_fresh(memory)
        for step in range(3):
            memory.update(unit_rows(4, 16, step).to(device), torch.tensor([0, step, 4, 4], device=device))
            assert_gram_is_fresh(memory)
    memory.load_state_dict({"centroids": unit_rows(3, 16, 7)})
    assert_gram_is_fresh(memory)
    memory.double()
    assert_gram_is_fresh(memory)


def test_no_gram_above_the_limit(unit_rows: UnitRows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_memory, "GRAM_LIMIT", 4)
    memory = ClusterMemory(8)
    memory.reset(unit_rows(4, 8))
    assert memory.gram is not None
    memory.reset(unit_rows(5, 8))
    assert memory.gram is None
    memory.update(unit_rows(2, 8), torch.tensor([0, 4]))


def test_state_dict_with_another_number_of_clusters(unit_rows: UnitRows) -> None:
    memory = ClusterMemory(8)
    memory.reset(unit_rows(7, 8))
    state = copy.deepcopy(memory.state_dict())
    other = torch.nn.ModuleDict({"memory": ClusterMemory(8)})
    other["memory"].reset(unit_rows(3, 8))
    other.load_state_dict({"memory.centroids": state["centroids"]})
    assert other["memory"].centroids.equal(memory.centroids)
    with pytest.raises(RuntimeError, match="centroids"):
        ClusterMemory(9).load_state_dict(state)


def test_a_loaded_memory_goes_on_to_the_bit(unit_rows: UnitRows) -> None:
    memory, other = ClusterMemory(64), ClusterMemory(64)
    memory.reset(unit_rows(50, 64))
    assert memory.gram is not None
    labels = torch.arange(20)
    memory.update(unit_rows(20, 64, 1), labels)
    other.load_state_dict(copy.deepcopy(memory.state_dict()))
    for m in (memory, other):
        m.update(unit_rows(20, 64, 2), labels)
    assert memory.gram is not None
    assert other.gram is not None
    assert memory.gram.equal(other.gram)
    assert memory.centroids.equal(other.centroids)


def test_memories_from_one_state_go_their_own_ways(unit_rows: UnitRows) -> None:
    memory = ClusterMemory(8)
    memory.reset(unit_rows(5, 8))
    before = memory.gram
    assert before is not None
    kept, state = before.clone(), memory.state_dict()
    other = ClusterMemory(8)
    other.load_state_dict(state)
    other.update(unit_rows(3, 8, 1), torch.arange(3))
    assert memory.gram is not None
    assert memory.gram.equal(kept)
    assert_gram_is_fresh(other)


def test_half_precision_rows(unit_rows: UnitRows, device: torch.device) -> None:
    memory, expected = ClusterMemory(8).to(device), ClusterMemory(8).to(device)
    f, y = unit_rows(3, 8, 1).to(device).bfloat16(), torch.arange(3, device=device)
    for m, rows in ((memory, f), (expected, f.float())):
        m.reset(unit_rows(4, 8))
        m.update(rows, y, rows[:, None].float())
    assert memory.centroids.equal(expected.centroids)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0,), ValueError, "num_features"),
        ((4, 1.5), ValueError, r"momentum: expected a finite number in \[0, 1\], got 1.5"),
        ((4, 0.2, "soft"), ValueError, "mode: expected one of hard, momentum, kalman, got 'soft'"),
    ],
)
def test_bad_constructor(arguments: tuple[object, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}"):
        ClusterMemory(*arguments)


@pytest.mark.parametrize(
    ("centroids", "message"),
    [
        (torch.ones(3, 5), "centroids: expected 4 columns"),
        (torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0]]), "centroids: expected rows with a direction, got zeros in row 1"),
        (torch.full((2, 4), torch.nan), "centroids: expected finite values"),
    ],
)
def test_bad_reset_keeps_the_memory(centroids: Tensor, message: str) -> None:
    memory = ClusterMemory(4)
    memory.reset(torch.eye(4))
    with pytest.raises(ValueError, match=f"^{message}"):
        memory.reset(centroids)
    assert memory.centroids.equal(torch.eye(4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.tensor([0, 4])}, "labels: "),
        ({"supports": torch.eye(4)[:2]}, r"supports: expected \[2, k, 4\], got shape \(2, 4\)"),
        ({"features": torch.full((2, 4), torch.nan)}, "features: expected finite values"),
        ({"features": torch.eye(4)[:2, :3]}, r"features: expected 4 columns, got shape \(2, 3\)"),
        ({"supports": torch.ones(2, 1, 3)}, r"supports: expected \[2, k, 4\], got shape \(2, 1, 3\)"),
    ],
)
@pytest.mark.parametrize("mode", ["hard", "kalman"])
def test_bad_update_keeps_the_memory(mode: str, change: dict[str, Tensor], message: str) -> None:
    memory = ClusterMemory(4, mode=mode)
    memory.reset(torch.eye(4), counts=torch.ones(4, dtype=torch.int64), residual=0.1)
    with pytest.raises(ValueError, match=f"^{message}"):
        memory.update(**{"features": torch.eye(4)[:2], "labels": torch.tensor([0, 1])} | change)
    assert memory.centroids.equal(torch.eye(4))
