"""Whatever can run for seconds hears a signal within two, and writes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from stopping import interrupt
from torch import Tensor

from ise_fast import cluster

OPERATORS = torch.ops.ise_fast


def random_rows(n: int, d: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0))


def full_encoding(n: int) -> tuple[Tensor, Tensor, Tensor]:
    indices = torch.arange(n, dtype=torch.int32).repeat(n)
    return torch.arange(0, n * n + 1, n), indices, torch.full((n * n,), 1 / (2 * n))


def random_table(n: int, k: int) -> Tensor:
    return torch.randint(n, (n, k), generator=torch.Generator().manual_seed(0))


def loss_arguments() -> tuple[Any, ...]:
    clusters = torch.nn.functional.normalize(random_rows(60000, 64), dim=1)
    return clusters[:2048].clone(), torch.arange(2048), clusters, 0.3, 3, 0.05, 0.6, 0.1, None, True


def chain(n: int) -> tuple[Tensor, Tensor, Tensor]:
    """A graph of n rows, each near to itself and to the next three."""
    columns = (torch.arange(n, dtype=torch.int32)[:, None] + torch.arange(4, dtype=torch.int32)).flatten()
    inside = columns < n
    indptr = torch.zeros(n + 1, dtype=torch.int64)
    indptr[1:] = inside.view(n, 4).sum(1).cumsum(0)
    return indptr, columns[inside], torch.full((int(indptr[-1]),), 0.1)


def clusters_of(n: int, *more: Any) -> tuple[Any, ...]:
    x = random_rows(n, 64)
    return x, x[: n // 40].clone(), *more


def batch(n: int, table: int) -> tuple[Tensor, Tensor]:
    rows = torch.nn.functional.normalize(random_rows(table, 64), dim=1)
    return rows[:n].clone(), rows


# Arguments of calls that take seconds of work. What is missing (support_samples, dbscan_dense, the updates of memories)
# takes less than that within any memory.
LONG: dict[str, Callable[[], tuple[Any, ...]]] = {
    "knn": lambda: (random_rows(30000, 128), 30),
    "radius_graph": lambda: (random_rows(30000, 128), 15.5),
    "k_reciprocal_encoding": lambda: (random_rows(30000, 128), random_table(30000, 100), 20),
    "jaccard_graph": lambda: (*full_encoding(2500), 0.5, 0, 2500),
    "jaccard_distance": lambda: full_encoding(2500),
    "re_ranking": lambda: (random_rows(20000, 128), random_table(20000, 20), 3000, 6, 0.3),
    "ise_loss": loss_arguments,
    "refresh_gram_": lambda: (torch.zeros(8192, 8192), random_rows(8192, 2048), None),
    "dbscan": lambda: (*chain(8_000_000), 0.3, 4),
    "rank_metrics": lambda: (torch.rand(600, 40000), *(torch.zeros(n).long() for n in (600, 40000)), None, None, 50),
    "merge_nearest": lambda: (*full_encoding(4000), torch.arange(4000), 0.01, 2**62),
    "kmeans": lambda: clusters_of(40000, 100),
    "kmeans_step": lambda: clusters_of(80000),
    "kmeans_start": lambda: (random_rows(40000, 64), torch.linspace(0, 0.9, 4000).double()),
    "nearest_centroids": lambda: (*batch(8192, 60000), torch.arange(8192), 5),
    "cluster_nce_loss": lambda: ((b := batch(8192, 60000))[0], torch.arange(8192), b[1], 0.05, True),
    "cycle_positives": lambda: (batch(9, 40000)[1], torch.arange(2000), 0.2, 5),
}


@pytest.mark.parametrize("name", LONG)
def test_a_signal_is_answered(name: str) -> None:
    arguments = LONG[name]()
    interrupt(lambda: getattr(OPERATORS, name)(*arguments), name)


@pytest.mark.parametrize(
    ("estimator", "operator"), [(cluster.DBSCAN(eps=15.5), "radius_graph"), (cluster.JaccardDBSCAN(), "knn")]
)
def test_an_estimator_that_was_stopped_has_no_labels(estimator: Any, operator: str) -> None:
    x = random_rows(30000, 128).numpy()
    interrupt(lambda: estimator.fit(x), operator)
    assert not hasattr(estimator, "labels_")
