"""The reference memory update against the published memory, and its order and ties."""

from __future__ import annotations

import math

import pytest
import torch
from golden_data import load, names
from torch import Tensor
from torch.nn.functional import normalize

from ise_fast.reference import update_memory_


def rows_of(*degrees: float) -> Tensor:
    """Unit rows in the plane."""
    return torch.tensor([[math.cos(math.radians(a)), math.sin(math.radians(a))] for a in degrees])


@pytest.mark.parametrize("name", names("head"))
def test_golden(name: str) -> None:
    g = load(name)
    rows = torch.cat([g["features"], g["supports"]])
    labels = torch.cat([g["labels"], g["labels"].repeat_interleave(g["topk"])])
    centroids = g["memory_before"].clone()
    update_memory_(centroids, rows, labels, g["momentum"], g["update"])
    torch.testing.assert_close(centroids, g["memory_after"], rtol=0, atol=2e-7)
    touched = set(labels.tolist())
    untouched = [c for c in range(len(centroids)) if c not in touched]
    assert untouched
    assert torch.equal(centroids[untouched], g["memory_before"][untouched])


def test_hard_takes_the_least_similar_row_first_on_ties() -> None:
    centroids = rows_of(0, 90)
    rows = rows_of(10, 30, -30, 20, 90)  # 30 and -30 degrees are equally far from the centroid
    update_memory_(centroids, rows, torch.tensor([0, 0, 0, 0, 1]), 0.5, "hard")
    torch.testing.assert_close(centroids, rows_of(15, 90), rtol=0, atol=1e-7)


def test_momentum_takes_every_row_in_order() -> None:
    centroids = rows_of(0, 90)
    update_memory_(centroids, rows_of(40, 90, -40), torch.tensor([0, 1, 0]), 0.5, "momentum")
    torch.testing.assert_close(centroids, rows_of(-10, 90), rtol=0, atol=1e-7)  # 0 -> 20 -> -10


def test_result_does_not_depend_on_other_labels() -> None:
    generator = torch.Generator().manual_seed(0)
    before = normalize(torch.randn(4, 8, generator=generator), dim=1)
    rows = normalize(torch.randn(12, 8, generator=generator), dim=1)
    labels = torch.arange(12) % 3
    for mode in ("hard", "momentum"):
        together = before.clone()
        update_memory_(together, rows, labels, 0.2, mode)
        alone = before.clone()
        for label in range(3):
            update_memory_(alone, rows[labels == label], labels[labels == label], 0.2, mode)
        assert torch.equal(together, alone)


def test_no_rows_and_momentum_one() -> None:
    before = rows_of(0, 60)
    centroids = before.clone()
    update_memory_(centroids, torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), 0.1)
    assert torch.equal(centroids, before)
    update_memory_(centroids, rows_of(45), torch.tensor([1]), 1.0, "momentum")
    torch.testing.assert_close(centroids, before, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"mode": "soft"}, ValueError, "mode: expected one of hard, momentum, got 'soft'"),
        ({"momentum": 1.1}, ValueError, r"momentum: expected a finite number in \[0, 1\]"),
        ({"labels": torch.tensor([2])}, ValueError, r"labels: expected values in \[0, 2\), got 2"),
        ({"rows": torch.tensor([[math.inf, 0.0]])}, ValueError, "rows: expected finite"),
        ({"rows": torch.zeros(1, 3)}, ValueError, "rows: expected 2 columns as in centroids"),
        ({"centroids": torch.eye(2).half()}, TypeError, "centroids: expected dtype float32 or float64, got float16"),
    ],
)
def test_bad_input_leaves_the_memory_alone(change: dict[str, object], error: type[Exception], message: str) -> None:
    centroids = torch.eye(2)
    good = {"centroids": centroids, "rows": rows_of(10), "labels": torch.tensor([0]), "momentum": 0.1}
    with pytest.raises(error, match=f"^{message}"):
        update_memory_(**good | change)
    assert torch.equal(centroids, torch.eye(2))
