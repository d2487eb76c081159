"""How far a search for neighbours is, told while it runs; and what a long one will take."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch

from ise_fast import _C, _search_progress, ops
from ise_fast._progress import Stage
from ise_fast.cluster import DBSCAN, JaccardDBSCAN


def seen_during(run: Callable[[], object]) -> set[tuple[int, int]]:
    """(done, pieces) as another thread finds them while `run` works."""
    seen: set[tuple[int, int]] = set()
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            seen.add(_C.search_progress())

    watcher = threading.Thread(target=look)
    watcher.start()
    run()
    over.set()
    watcher.join()
    return seen - {(0, 0)}


def test_operators_count_their_pieces() -> None:
    x = torch.randn(1500, 64, generator=torch.Generator().manual_seed(0))
    searches: tuple[tuple[Callable[[], object], int], ...] = (
        (lambda: torch.ops.ise_fast.knn(x, 5, None, "sqeuclidean", 25), 60 * 61 // 2 + 24),
        (lambda: torch.ops.ise_fast.knn(x, 5, x[:130], "sqeuclidean", 25), 60 * 6 + 3),
        (lambda: torch.ops.ise_fast.radius_graph(x, 7.0, "euclidean", 25), 60 * 61 // 2),
    )
    for run, pieces in searches:
        seen: set[tuple[int, int]] = set()
        while not any(done > 0 for done, _ in seen):  # a fast machine may be through before anyone looks
            seen = seen_during(run)
        assert all(0 <= done <= pieces for done, _ in seen)
        assert max(total for _, total in seen) == pieces
    assert _C.search_progress() == (0, 0)


def test_every_piece_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([(0, 0), (3, 10), (2, 10), (10, 10)])
    told: list[int] = []
    stage = Stage(50, "neighbours", "rows")

    def update(count: int) -> None:
        told.append(count)
        stage.done += count

    monkeypatch.setattr(stage, "update", update)
    over = threading.Event()

    class Counts:
        @staticmethod
        def search_progress() -> tuple[int, int]:
            answer = next(answers)
            if answer == (10, 10):
                over.set()
            return answer

    monkeypatch.setattr(_search_progress, "_C", Counts)
    monkeypatch.setattr(_search_progress, "INTERVAL", 0.001)
    _search_progress._watch(stage, over)
    assert told == [15, 35]  # never backwards


def test_verbose_estimators_announce_a_long_search(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    x = np.random.default_rng(0).normal(size=(60, 20))
    quiet = JaccardDBSCAN(k1=10).fit_predict(x)
    monkeypatch.setattr(_search_progress, "search_seconds", lambda rows, k: 754.0 if k in (1, 10) else None)
    logger = logging.getLogger("ise_fast._search_progress")
    logger.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.INFO, logger.name):
            assert (JaccardDBSCAN(k1=10, verbose=True).fit_predict(x) == quiet).all()
            DBSCAN(verbose=True).fit(x)
            DBSCAN().fit(x)
    finally:
        logger.removeHandler(caplog.handler)
    said = [record.getMessage() for record in dict.fromkeys(caplog.records)]
    assert said == ["neighbours of 60 rows x 20: at most about 12:34"] * 2


def test_the_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    """128 queries of 1,280 rows, each against all: ten times that, halved because pairs are compared once."""
    x = torch.randn(1280, 20)
    assert _search_progress.search_seconds(x, 3) is None
    assert _search_progress.announce_search(x, 3) == ""
    now = iter([10.0, 12.0])
    monkeypatch.setattr(_search_progress, "_LEAST_WORK", 1.0)
    monkeypatch.setattr("ise_fast._search_progress.time.perf_counter", lambda: next(now))
    assert _search_progress.search_seconds(x, 3) == pytest.approx(10.0)
    assert _search_progress.search_seconds(x[:, :16], 3) is None  # a tree may take it
    assert ops.knn(x, 1).indices.shape == (1280, 1)
