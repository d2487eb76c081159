"""Bottom-up merging against the reference, ties and the certificate included."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ise_fast import ops, reference
from ise_fast.types import CSRGraph


def grid(n: int, seed: int) -> Tensor:
    return torch.randint(-2, 3, (n, 3), generator=torch.Generator().manual_seed(seed)).float()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("penalty", "merges"), [(0.0, 1), (0.5, 7), (0.1, 1000), (2.0, 0)])
def test_equals_the_reference(device: torch.device, seed: int, penalty: float, merges: int) -> None:
    n = 1 + 17 * seed
    graph = ops.radius_graph(grid(n, seed), 4.0, metric="sqeuclidean")
    labels = torch.arange(n) * 7 % max(1, n // 2)
    ours = ops.merge_nearest(graph.to(device), labels.to(device), penalty, merges)
    for mine, theirs in zip(ours, reference.merge_nearest(graph, labels, penalty, merges), strict=True):
        assert mine.cpu().equal(theirs)


def test_labels_are_numbered_and_pairs_within_a_cluster_are_passed_over() -> None:
    graph = ops.radius_graph(torch.tensor([[0.0], [1.0], [2.0], [9.0]]), 100.0, metric="sqeuclidean")
    out = ops.merge_nearest(graph, torch.tensor([5, 9, 9, 7]), 0.0, 9)
    assert out.labels.tolist() == [0, 0, 0, 0]
    assert out.pairs.tolist() == [[0, 1], [2, 3]]
    assert out.dissimilarity.tolist() == [1.0, 49.0]


def test_a_pair_that_is_outside_by_less_than_float32_shows() -> None:
    """Of two pairs that round to one distance the first counts, and it is the one outside the first radius."""

    def pair(squared: float, height: float) -> list[list[float]]:
        along = float(torch.tensor(squared).sqrt() - 2e-6)  # a float32 number
        return [[0, 0, height], [along, (squared - along**2) ** 0.5, height]]

    step = 1.002
    radius = float(torch.tensor(step).square()) * 1.0001  # as merge_rows begins
    below = float(torch.tensor(radius))
    assert below < radius < below + 2.0**-24
    row = [[i * step, 0, 300] for i in range(4)]
    x = torch.tensor(pair((radius + below + 2.0**-24) / 2, 100) + pair((radius + below) / 2, 200) + row)
    labels = torch.tensor([0, 1, 2, 3, 4, 4, 4, 4])
    graph = ops.radius_graph(x, radius, metric="sqeuclidean")
    assert (graph.indptr[1], graph.indptr[3] - graph.indptr[2]) == (1, 2)
    whole = ops.merge_nearest(ops.radius_graph(x, 1e9, metric="sqeuclidean"), labels, 0.0, 1)
    assert whole.pairs.tolist() == [[0, 1]]
    assert ops.merge_rows(x, labels, 0.0, 1).pairs.tolist() == [[0, 1]]


def test_empty_graph() -> None:
    none = torch.empty(0, dtype=torch.int64)
    out = ops.merge_nearest(CSRGraph(torch.zeros(1, dtype=torch.int64), none.int(), torch.empty(0)), none, 0.0, 3)
    assert [len(x) for x in out] == [0, 0, 0]


def test_opcheck(device: torch.device) -> None:
    graph = ops.radius_graph(grid(20, 1).to(device), 2.0, metric="sqeuclidean")
    parts = graph.indptr, graph.indices, graph.values
    torch.library.opcheck(torch.ops.ise_fast.merge_nearest.default, (*parts, torch.arange(20, device=device), 0.1, 5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.tensor([0, -1])}, "labels: expected at least 0, got -1"),
        ({"labels": torch.tensor([0])}, "labels: expected size 2|labels: expected one label"),
        ({"penalty": -1}, "penalty: expected a finite number"),
        ({"merges": -1}, "merges: expected an integer of at least 0"),
        (
            {"graph": CSRGraph(torch.tensor([0, 1, 2]), torch.tensor([0, 5]), torch.ones(2))},
            "(graph.)?indices: expected",
        ),
    ],
)
def test_bad_input(change: dict[str, Any], message: str) -> None:
    good = {"graph": ops.radius_graph(torch.eye(2), 9.0), "labels": torch.arange(2), "penalty": 0.0, "merges": 1}
    for api in (ops, reference):
        with pytest.raises(ValueError, match=f"^{message}"):
            api.merge_nearest(**good | change)
