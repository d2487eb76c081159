"""What goes wrong on one process ends all of them, in seconds and in one line: nobody waits for the others' timeout."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ise_fast.cluster import DBSCAN, JaccardDBSCAN

SIZE, FAULTY = 3, 1
OTHERS = tuple(rank for rank in range(SIZE) if rank != FAULTY)
#: Far more than it takes on a busy machine, far less than the process group's timeout of 30 minutes.
PATIENCE = 300


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, tuple[str, str]]]:
    """For each process and each fault, the class of the exception and its text."""
    folder = tmp_path_factory.mktemp("faulty")
    command = [sys.executable, str(Path(__file__).parent / "faulty_worker.py"), str(folder)]
    runs = [
        subprocess.Popen([*command, str(rank), str(SIZE)], stdout=subprocess.PIPE, text=True) for rank in range(SIZE)
    ]
    try:
        texts = [run.communicate(timeout=PATIENCE)[0] for run in runs]
    finally:
        for run in runs:
            run.kill()
    assert [run.returncode for run in runs] == [-signal.SIGKILL if rank == FAULTY else 0 for rank in range(SIZE)]
    answers = [[line.split("|") for line in text.splitlines()] for text in texts]
    return [{name: (kind, text) for name, kind, text in lines} for lines in answers]


@pytest.mark.parametrize(
    ("fault", "kind", "text"),
    [
        ("NaN", "ValueError", "X: expected finite values, got NaN or infinity in row 3"),
        ("range", "ValueError", "k1: expected an integer of at least 1, got 0"),
        ("start", "ValueError", "init: expected shape (3, 8), got (2, 8)"),
        ("memory", "MemoryError", "out of memory: asked for 9 GiB"),
    ],
)
def test_one_process_fails_and_the_others_say_which(
    fault: str, kind: str, text: str, said: list[dict[str, tuple[str, str]]]
) -> None:
    assert said[FAULTY][fault] == (kind, text)
    for rank in OTHERS:
        assert said[rank][fault] == ("PeerError", f"process {FAULTY}: {text}")


@pytest.mark.parametrize(
    ("fault", "kind", "text"),
    [
        ("columns", "ValueError", "X: expected 8 columns as others have, got 5 in process 1"),
        (
            "precision", "ValueError",
            "dtype of X: expected the same in all processes, got torch.float32 in process 0 and torch.float64 in "
            "process 1",
        ),
        (
            "settings", "ValueError",
            "eps: expected the same in all processes, got 0.6 in process 0 and 0.5 in process 1",
        ),
        (
            "clusters", "ValueError",
            "n_clusters: expected the same in all processes, got 8 in process 0 and 9 in process 1",
        ),
        ("too many clusters", "ValueError", "n_clusters: n_samples=60 should be >= n_clusters=61"),
    ],
)  # fmt: skip
def test_what_differs_is_said_by_all(fault: str, kind: str, text: str, said: list[dict[str, tuple[str, str]]]) -> None:
    assert [answers[fault] for answers in said] == [(kind, text)] * SIZE


def test_too_many_pairs_are_said_by_all(said: list[dict[str, tuple[str, str]]]) -> None:
    kinds, texts = zip(*(answers["pairs"] for answers in said), strict=True)
    assert set(kinds) == {"TooManyPairs"}
    assert len(set(texts)) == 1
    assert "more than max_pairs = 100 pairs are within eps = 0.9" in texts[0]


def test_the_group_serves_after_a_failure(said: list[dict[str, tuple[str, str]]]) -> None:
    assert [answers["healthy again"] for answers in said] == [("none", "")] * SIZE


def test_a_killed_process_ends_all(said: list[dict[str, tuple[str, str]]]) -> None:
    assert "killed" not in said[FAULTY]
    for rank in OTHERS:
        kind, text = said[rank]["killed"]
        assert kind == "PeerError"
        assert text.startswith(f"process {rank} of {SIZE}: another process is gone (")


def test_what_a_group_cannot_do_is_refused() -> None:
    """A group of one process does for these."""
    x = torch.eye(4)
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        group = torch.distributed.group.WORLD
        with pytest.raises(ValueError, match=r"^group: expected features, .* got metric='precomputed'$"):
            DBSCAN(metric="precomputed").fit(x, group=group)
        with pytest.raises(ValueError, match=r"^sample_weight: expected none where a group"):
            DBSCAN().fit(x, sample_weight=[1, 1, 1, 1], group=group)
        with pytest.raises(TypeError, match=r"^X: expected dtype"):
            DBSCAN().fit(x.to(torch.complex64), group=group)
        assert DBSCAN(1).fit(x.long(), group=group).labels_.tolist() == DBSCAN(1).fit(x).labels_.tolist()
        fitted = JaccardDBSCAN().fit(x, group=group)
        assert fitted.labels_.tolist() == JaccardDBSCAN().fit(x).labels_.tolist()
        with pytest.raises(ValueError, match=r"^predict: expected an estimator fitted without a group"):
            fitted.predict(x)
        assert fitted.fit(x).predict(x).tolist() == fitted.labels_.tolist()
    finally:
        torch.distributed.destroy_process_group()
