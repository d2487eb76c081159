"""Rows so close together that float32 products say nothing of their distances: searched among their differences."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ise_fast import ops, reference

N, D = 640, 48  # more than the fewest rows that are searched together


def close(n: int, spread: float, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(1, D, generator=g), dim=1) + spread * torch.randn(
        n, D, generator=g
    )


KINDS: dict[str, Callable[[], Tensor]] = {
    "one place": lambda: close(N, 1e-6),
    "a wider place": lambda: close(N, 1e-4),
    "at the last bits": lambda: close(N, 3e-9),
    "two places and rows anywhere": lambda: torch.cat([close(300, 1e-6), close(300, 1e-5, 1), close(40, 1.0, 2)])[
        torch.randperm(N, generator=torch.Generator().manual_seed(0))
    ],
    "close rows within close rows": lambda: torch.cat([close(320, 1e-4), close(320, 1e-7)]),
    "some of them equal": lambda: close(N, 1e-6)[torch.arange(N) // 3],
    "far from the origin": lambda: close(N, 1e-6) * 1e12,
    "tiny": lambda: close(N, 1e-6) * 1e-25,
    "too few": lambda: torch.cat([close(100, 1e-6, seed) for seed in range(6)]),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("k", "metric"), [(1, "sqeuclidean"), (20, "euclidean"), (20, "cosine"), (300, "sqeuclidean")])
def test_equals_the_reference(device: torch.device, kind: str, k: int, metric: str) -> None:
    x = KINDS[kind]()
    some = torch.arange(0, len(x), 2)
    expected = reference.knn(x, k, metric=metric)
    for y, rows in ((None, slice(None)), (x[some].to(device), some)):
        found = ops.knn(x.to(device), k, y=y, metric=metric)
        assert found.indices.cpu().equal(expected.indices[rows])
        assert found.distances.cpu().equal(expected.distances[rows])


def test_differences_beyond_float32() -> None:
    x = 3.3e38 * (1 - 1e-6 * torch.rand(600, 1024, generator=torch.Generator().manual_seed(0)))
    x[300:, 0] *= -1
    assert ops.knn(x, 20).indices.equal(reference.knn(x, 20).indices)


@pytest.mark.parametrize("spread", [1e-4, 1e-6])
@pytest.mark.parametrize("own", [True, False])
def test_no_row_is_compared_with_all(spread: float, own: bool) -> None:
    """Their differences are told apart by products; those of two places far from each other are, too."""
    for x in (close(N, spread), torch.cat([close(N, spread), close(N, spread, 1)])):
        *_, redone = torch.ops.ise_fast.knn(x, 20, None if own else x.clone())
        assert int(redone) == 0
