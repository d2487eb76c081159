"""Nearest among given candidates: exact among them, and honest about the rest."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ise_fast import ops
from tests.pseudo_label_data import clustered

UnitRows = Callable[..., Tensor]


@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean", "cosine"])
def test_all_rows_as_candidates_give_the_bits_of_all(metric: str, unit_rows: UnitRows) -> None:
    x = torch.cat([clustered(unit_rows, 80, 6), torch.zeros(2, 6)])
    x[40:50] = x[3]  # ties: the index decides
    y = torch.cat([x[:30], x[80:]])
    shuffled = torch.stack([torch.randperm(82, generator=torch.Generator().manual_seed(i)) for i in range(32)])
    expected = ops.knn(x, 9, y=y, metric=metric)
    for candidates in (shuffled, torch.cat([shuffled.int(), shuffled.int()], 1)):
        found = ops.knn(x, 9, y=y, metric=metric, candidates=candidates)
        assert found.indices.equal(expected.indices)
        assert found.distances.equal(expected.distances)
        assert bool(found.certified.all())


def test_the_answer_is_exact_among_the_candidates(unit_rows: UnitRows) -> None:
    x = clustered(unit_rows, 200, 8)
    some = torch.arange(0, 200, 3)
    found = ops.knn(x, 5, candidates=some.expand(200, -1))
    expected = ops.knn(x[some], 5, y=x)
    assert found.indices.equal(some[expected.indices])
    assert found.distances.equal(expected.distances)
    assert not bool(found.certified.any())


def test_a_bound_certifies_what_is_strictly_nearer() -> None:
    x = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    y, candidates = torch.zeros(4, 1), torch.tensor([[0, 1]]).expand(4, -1)
    beyond = torch.tensor([2.0, 1.5, 1.0, 0.5])
    for metric in ("euclidean", "sqeuclidean"):
        found = ops.knn(x, 2, y=y, metric=metric, candidates=candidates, beyond=beyond)
        assert found.certified.tolist() == [True, True, False, False]
        assert found.indices.tolist() == [[0, 1]] * 4


def test_too_few_candidates_are_said() -> None:
    x = torch.tensor([[0.0], [1.0], [2.0]])
    candidates = torch.tensor([[-1, 2], [1, 1], [-1, -1]])
    found = ops.knn(x, 2, candidates=candidates, beyond=torch.full((3,), 9.0))
    assert found.indices.tolist() == [[2, -1], [1, -1], [-1, -1]]
    assert found.distances.tolist() == [[4.0, torch.inf], [0.0, torch.inf], [torch.inf, torch.inf]]
    assert not bool(found.certified.any())
    assert ops.knn(x, 3, candidates=candidates[:, :1]).indices.shape == (3, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"candidates": torch.tensor([[0]])}, "candidates: expected a row for each of 3 queries"),
        ({"candidates": torch.tensor([[0], [3], [0]])}, "candidates: expected -1 to 2, got 0 to 3"),
        ({"candidates": torch.tensor([0, 1, 2])}, "candidates: expected 2 dimensions"),
        ({"beyond": torch.ones(3)}, "beyond: expected candidates with it, got none"),
        (
            {"candidates": torch.zeros(3, 1).long(), "beyond": torch.ones(2)},
            "beyond: expected a number for each of 3 queries, got 2",
        ),
    ],
)
def test_bad_candidates_are_refused(arguments: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        ops.knn(torch.eye(3), 1, **arguments)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"^candidates: expected dtype int32 or int64, got float32"):
        ops.knn(torch.eye(3), 1, candidates=torch.zeros(3, 1))
