"""Reliability by counting against the N x N masks of the reference."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ise_fast import ops, reference


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("theta", [None, 0.0, 0.4, 2.0])
def test_counting_equals_masks(device: torch.device, seed: int, theta: float | None) -> None:
    g = torch.Generator().manual_seed(seed)
    n, clusters = 1 + 37 * seed, 1 + seed
    normal = torch.randint(-1, clusters, (n,), generator=g)
    tight, loose = (
        torch.where(torch.rand(n, generator=g) < 0.2, torch.randint(-1, 9, (n,), generator=g), normal) for _ in "ab"
    )
    ours = ops.reliable_labels(tight.to(device), normal.to(device), loose.to(device), theta)
    expected = reference.reliable_labels(tight, normal, loose, theta)
    assert ours.threshold == expected.threshold
    for mine, theirs in zip((ours[0], *ours[2:]), (expected[0], *expected[2:]), strict=True):
        assert mine.cpu().equal(theirs)


def test_extremes() -> None:
    """No image, only noise, one cluster that everybody confirms."""
    none = torch.empty(0, dtype=torch.int64)
    assert ops.reliable_labels(none, none, none).labels.tolist() == []
    noise = torch.full((3,), -1)
    out = ops.reliable_labels(noise, noise, noise)
    assert (out.labels.tolist(), out.threshold) == ([0, 1, 2], 1.0)
    one = torch.zeros(4, dtype=torch.int64)
    out = ops.reliable_labels(one, one, one)
    assert (out.labels.tolist(), out.threshold) == ([0, 0, 0, 0], 0.0)
    # Nobody may stay: the last image keeps the number.
    assert ops.reliable_labels(one, one, torch.tensor([0, 0, 1, 2]), theta=0.1).labels.tolist() == [1, 2, 3, 0]


def test_numbers_of_clusters_may_be_large(device: torch.device) -> None:
    """No table is as long as the largest number; a cluster keeps its own, and others follow after the largest."""
    tight, normal, loose = (
        torch.tensor(x) for x in ([0, 0, 1, -1, 2], [5, 5, 5, -1, 10**12], [10**15, 10**15, 7, 7, 7])
    )
    ours = ops.reliable_labels(tight.to(device), normal.to(device), loose.to(device), 0.1)
    expected = reference.reliable_labels(tight, normal, loose, 0.1)
    assert ours.labels.tolist() == expected.labels.tolist()
    assert ours.completeness.cpu().equal(expected.completeness)
    assert max(ours.labels.tolist()) == 10**12 + 3


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"tight": torch.zeros(2, dtype=torch.int64)}, ValueError, "tight: expected one label for each of the 3 rows"),
        ({"loose": torch.zeros(3)}, TypeError, "loose: expected dtype int64"),
        ({"normal": torch.tensor([0, -2, 0])}, ValueError, "normal: expected labels of at least -1, got -2"),
        ({"loose": torch.tensor([0, 2**62, 0])}, ValueError, r"loose: expected labels below 2\^62"),
        ({"theta": -0.5}, ValueError, "theta: expected a finite number"),
    ],
)
def test_bad_input(change: dict[str, Any], error: type[Exception], message: str) -> None:
    good = dict.fromkeys(("tight", "normal", "loose"), torch.zeros(3, dtype=torch.int64))
    for api in (ops, reference):
        with pytest.raises(error, match=f"^{message}"):
            api.reliable_labels(**good | change)
