from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ise_fast import ops

UnitRows = Callable[..., Tensor]


def brute_force(features: Tensor, centroids: Tensor, labels: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """float64 similarities rounded to float32, sorted by (similarity falling, index rising)."""
    z = (features.double() @ centroids.double().T).float()
    z.scatter_(1, labels[:, None], -torch.inf)
    similarity, indices = z.sort(dim=1, descending=True, stable=True)
    return similarity[:, :k], indices[:, :k]


@pytest.mark.parametrize(("b", "clusters", "d", "k"), [(1, 2, 1, 1), (3, 4, 31, 3), (33, 65, 33, 5), (8, 257, 130, 1)])
def test_equals_brute_force(unit_rows: UnitRows, device: torch.device, b: int, clusters: int, d: int, k: int) -> None:
    f, c = unit_rows(b, d, 1).to(device), unit_rows(clusters, d, 2).to(device)
    y = (torch.arange(b) % clusters).to(device)
    similarity, indices = ops.nearest_centroids(f, c, y, k)
    expected_similarity, expected_indices = brute_force(f, c, y, k)
    assert indices.equal(expected_indices)
    torch.testing.assert_close(similarity, expected_similarity, rtol=0, atol=1.2e-7)  # one unit in the last place


def test_ties_go_to_the_lowest_index_and_own_centroid_is_left_out(device: torch.device) -> None:
    c = torch.eye(4)[[2, 0, 0, 1, 0, 2]].to(device)  # centroids 1, 2 and 4 coincide
    f = torch.eye(4)[[0, 0]].to(device)
    indices = ops.nearest_centroids(f, c, torch.tensor([2, 0], device=device), 3).indices
    assert indices.tolist() == [[1, 4, 0], [1, 2, 4]]


def test_minus_zero_ties_with_zero(device: torch.device) -> None:
    c = torch.tensor([[1.0], [0.0], [-0.0], [0.0]], device=device)
    f = torch.tensor([[-1.0]], device=device)  # products -1, -0, +0, -0
    assert ops.nearest_centroids(f, c, torch.tensor([0], device=device), 3).indices.tolist() == [[1, 2, 3]]


def test_strided_input_and_repeated_calls_give_the_same_bits(unit_rows: UnitRows, device: torch.device) -> None:
    f, c = unit_rows(37, 66, 1).to(device), unit_rows(50, 66, 2).to(device)
    y = torch.arange(37, device=device)
    first = ops.nearest_centroids(f, c, y, 4)
    strided = ops.nearest_centroids(f.T.contiguous().T, c.repeat_interleave(2, 0)[::2], y.repeat(2)[:37], 4)
    for a, b in zip(first, strided, strict=True):
        assert a.equal(b)


def test_threads_do_not_change_the_bits(unit_rows: UnitRows) -> None:
    f, c, y = unit_rows(37, 66, 1), unit_rows(50, 66, 2), torch.arange(37)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            results.append(ops.nearest_centroids(f, c, y, 4))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert other.similarity.equal(results[0].similarity)
        assert other.indices.equal(results[0].indices)


def test_empty_batch(device: torch.device) -> None:
    result = ops.nearest_centroids(
        torch.empty(0, 3, device=device),
        torch.eye(3, device=device),
        torch.empty(0, dtype=torch.int64, device=device),
        2,
    )
    assert result.indices.shape == result.similarity.shape == (0, 2)


def test_opcheck(unit_rows: UnitRows, device: torch.device) -> None:
    arguments = (unit_rows(5, 8).to(device), unit_rows(7, 8, 1).to(device), torch.arange(5, device=device), 2)
    torch.library.opcheck(torch.ops.ise_fast.nearest_centroids.default, arguments)


GOOD = {"features": torch.eye(3), "centroids": torch.eye(3), "labels": torch.arange(3), "k": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": torch.ones(3)}, r"features: expected 2 dimensions, got shape \[3\]"),
        ({"centroids": torch.ones(3, 2)}, r"centroids: expected size 3 in dimension 1, got shape \[3, 2\]"),
        ({"labels": torch.arange(2)}, r"labels: expected size 3 in dimension 0, got shape \[2\]"),
        ({"labels": torch.arange(3, dtype=torch.int32)}, "labels: expected int64, got int32"),
        ({"labels": torch.tensor([0, 3, 1])}, "labels: expected 0 to 2, got 3 at row 1"),
        ({"labels": torch.tensor([0, 1, -1])}, "labels: expected 0 to 2, got -1 at row 2"),
        ({"k": 0}, "k: expected an integer of at least 1, got 0"),
        ({"k": 3}, "k: expected 1 to 2 .*, got 3"),
    ],
)
def test_bad_input_names_the_argument(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ops.nearest_centroids(**{**GOOD, **change})
