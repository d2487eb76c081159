"""Another thread writes to the tensors while an operator reads them: any answer or error, but no crash and no hang."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ise_fast import ops

OPERATORS = torch.ops.ise_fast
SECONDS = 0.1  # of calls for each


def rows(n: int, d: int, spread: float = 1.0) -> Tensor:
    g = torch.Generator().manual_seed(n + d)
    return normalize(torch.randn(1, d, generator=g) / spread + torch.randn(n, d, generator=g), dim=1)


def integers(high: int, *shape: int) -> Tensor:
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(high))


def graph(n: int) -> tuple[Tensor, Tensor, Tensor]:
    return OPERATORS.radius_graph(rows(n, 4), 0.5, "sqeuclidean")


def calls() -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Operators and arguments, by the ways that they may take."""
    x, table, y = rows(600, 40), rows(300, 24), integers(300, 64)
    f = rows(64, 24)
    members = ops.group_members(integers(30, 300), 30)
    yield "knn", (x, 10)
    yield "knn", (x, 200, None, "cosine", 64)
    yield "knn", (x, 10, x[:90].clone(), "sqeuclidean", 0, 8)  # along principal axes
    yield "knn", (rows(600, 3), 10, None, "sqeuclidean", 0, -2)  # tree
    yield "knn", (rows(600, 40, 1e-6), 10)  # close rows
    yield "radius_graph", (x, 1.3)
    yield "radius_graph", (x, 1.3, "euclidean", 0, 8)
    yield "radius_graph", (rows(600, 3).double(), 0.3, "euclidean", 0, -2)
    yield "k_reciprocal_encoding", (x, integers(600, 600, 20), 6)
    encoding = OPERATORS.k_reciprocal_encoding(x, OPERATORS.knn(x, 20)[1], 6)
    yield "jaccard_graph", (*encoding, 0.7, 0, 600)
    yield "jaccard_distance", encoding
    yield "dbscan", (*graph(600), 0.3, 4)
    yield "dbscan_dense", (torch.rand(400, 400), 0.3, 4)
    yield "merge_nearest", (*graph(400), integers(90, 400), 0.01, 60)
    yield "nearest_centroids", (f, table, y, 3)
    yield "nearest_centroids", (f, table, y, 40)
    yield "support_samples", (f, table, y, integers(300, 64, 2), 0.3)
    yield "ise_loss", (f, y, table, 0.3, 2, 0.05, 0.6, 0.1, table @ table.T, True)
    yield "cluster_nce_loss", (f, y, table, 0.05, True)
    yield "update_memory_", (table.clone(), f, y, None, 0.2, "hard")
    yield "refresh_gram_", (torch.zeros(300, 300), table, y)
    yield "group_nce_loss", (f, table, torch.ones(300).long(), y, 0.05, 1e-6, True)
    yield "refresh_groups_", (torch.zeros(30, 24), table, members.indptr, members.rows, integers(30, 9))
    yield "soft_nce_loss", (f, table, y[:, None], torch.ones(64, 1), 0.05, None, 9, None, None, True)
    yield "soft_nce_loss", (f, table, y[:, None], torch.ones(64, 1), 0.05, None, 0, None, None, True)
    yield "cycle_positives", (table, integers(300, 40), 0.3, 10)
    yield "multi_label_loss", (f, table, torch.arange(65), integers(300, 64).int(), 5.0, 0.2, True)
    yield "kmeans", (x, x[:40].clone(), 9)
    yield "kmeans_start", (x, torch.rand(30).double())
    people = integers(9, 60), integers(9, 300), integers(3, 60), integers(3, 300)
    yield "rank_metrics", (torch.rand(60, 300), *people, 50)
    yield "re_ranking", (x, OPERATORS.knn(x, 11)[1], 90, 6, 0.3)


def writes(tensors: list[Tensor], rng: random.Random) -> Callable[[], None]:
    """One write to one of the tensors and back; nothing here may take a lock that the operator waits for."""
    kept = [x.clone() for x in tensors]

    def write() -> None:
        place = rng.randrange(len(tensors))
        x, was = tensors[place], kept[place]
        if x.is_floating_point():
            x.fill_(rng.choice([float("nan"), float("inf"), -1e30]))
        else:
            x.view(-1)[rng.randrange(x.numel())] = rng.choice([2**31 - 1, -7, x.numel()])
        x.copy_(was)

    return write


def change_during_calls() -> None:
    torch.set_num_threads(2)
    for name, arguments in calls():
        print(name, flush=True)
        stop = threading.Event()
        write = writes([a.requires_grad_(False) for a in arguments if isinstance(a, Tensor)], random.Random(1))

        def vandal(write: Callable[[], None] = write, stop: threading.Event = stop) -> None:
            while not stop.is_set():
                write()

        thread = threading.Thread(target=vandal)
        thread.start()
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            with contextlib.suppress(ValueError, RuntimeError):  # RuntimeError: LAPACK met NaN
                getattr(OPERATORS, name)(*arguments)
        stop.set()
        thread.join()
    print("all", flush=True)


def test_no_crash() -> None:
    """In a process of its own, which tells by its last line where it ended."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, timeout=3600)
    assert run.returncode == 0, run.stdout[-100:] + run.stderr[-3000:]
    assert run.stdout.split()[-1] == "all"


if __name__ == "__main__":
    change_during_calls()
