"""Long searches for neighbours: what they will take, and how far they are."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ise_fast import _C, _progress, ops

log = logging.getLogger(__name__)
INTERVAL = 0.2  # seconds between two looks
LONG = 5.0  # seconds: a shorter search is not announced
_QUERIES = 128
_LEAST_WORK = 2e11  # multiply-adds of all pairs; below, a search is over before a sample is
_TREE_COLUMNS = 16  # up to here a tree may search, and a sample would say nothing of it


@contextmanager
def watched_search(x: Tensor, k: int, *, shown: bool) -> Iterator[None]:
    """While the block searches: what it will take in the log first, then a bar on a terminal, else a line every tenth.

    Args:
        x: [N, d] the rows that are compared.
        k: neighbours of each.
        shown: False does nothing.
    """
    if not shown:
        yield
        return
    if text := announce_search(x, k):
        log.info("%s", text)
    with search_bar(len(x)):
        yield


@contextmanager
def search_bar(rows: int) -> Iterator[None]:
    """How far the block's search for neighbours is; on a GPU nothing is known of that."""
    over = threading.Event()
    with _progress.stage(rows, "neighbours", "rows", bar=True) as stage:
        watcher = threading.Thread(target=_watch, args=(stage, over), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()


def _watch(stage: _progress.Stage, over: threading.Event) -> None:
    while not over.wait(INTERVAL):
        done, pieces = _C.search_progress()
        rows = stage.total * done // max(1, pieces)
        if rows > stage.done:
            stage.update(rows - stage.done)


def search_seconds(x: Tensor, k: int) -> float | None:
    """At most about how long the k nearest rows of all rows take, from some queries; None where that is soon over.

    Args:
        x: [N, d].
        k: neighbours, at most N.
    """
    n, d = x.shape
    if float(n) * n * d < _LEAST_WORK or d <= _TREE_COLUMNS:
        return None
    rows = x.float()
    queries = rows[torch.linspace(0, n - 1, _QUERIES, device=x.device).long()]
    begin = time.perf_counter()
    ops.knn(rows, k, y=queries).indices.cpu()  # waits for a GPU
    # Rows that are compared with each other take half of the products.
    return (time.perf_counter() - begin) * n / _QUERIES / 2


def announce_search(x: Tensor, k: int) -> str:
    """A sentence on how long the search will take; nothing if that is short."""
    seconds = search_seconds(x, k)
    if seconds is None or seconds < LONG:
        return ""
    return f"neighbours of {len(x)} rows x {x.shape[1]}: at most about {_progress.clock(seconds)}"
