from __future__ import annotations

import errno
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ise_fast.engine import checkpoint
from ise_fast.engine.checkpoint import CheckpointFolder
from ise_fast.engine.errors import RunError, UsageError


def state(epoch: int, iteration: int = 0) -> dict[str, Any]:
    return {"format": checkpoint.FORMAT, "epoch": epoch, "iteration": iteration, "x": torch.full((3,), float(epoch))}


def test_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "c", keep=2)
    for epoch in range(1, 6):
        folder.save(state(epoch), best=epoch == 2)
    assert [p.name for p in folder.all()] == ["checkpoint-0004-000000.pt", "checkpoint-0005-000000.pt"]
    assert checkpoint.load(folder.best)["epoch"] == 2


def test_order_is_by_epoch_then_iteration(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep=9)
    for epoch, iteration in ((10, 0), (9, 300), (9, 40), (10_000, 0)):
        folder.save(state(epoch, iteration))
    found = folder.load_newest()
    assert found is not None
    assert found[1]["epoch"] == 10_000
    assert [p.name[11:-3] for p in folder.all()] == ["0009-000040", "0009-000300", "0010-000000", "10000-000000"]


def test_a_damaged_file_falls_back_to_the_one_before(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep=3)
    folder.save(state(1))
    newest = folder.save(state(2))
    newest.write_bytes(newest.read_bytes()[:100])
    found = folder.load_newest()
    assert found is not None
    assert found[1]["epoch"] == 1
    folder.all()[0].write_bytes(b"")
    with pytest.raises(UsageError, match="no checkpoint"):
        folder.load_newest()


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"model": 1}, path)
    with pytest.raises(UsageError, match="not a checkpoint of this program"):
        checkpoint.load(path)
    with pytest.raises(UsageError, match="no such file"):
        checkpoint.load(tmp_path / "y.pt")


def test_a_full_disk_is_reported_and_leaves_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = CheckpointFolder(tmp_path, keep=2)
    folder.save(state(1), best=True)

    def full(state: Any, file: Any) -> None:
        file.write(b"half a checkpoint")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(RunError, match=r"disk is full.*checkpoint-0001-000000.pt is usable.*--resume auto"):
        folder.save(state(2), best=True)
    assert sorted(os.listdir(tmp_path)) == ["best.pt", "checkpoint-0001-000000.pt"]
    assert checkpoint.load(folder.best)["epoch"] == 1


def test_left_overs_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    left = tmp_path / ".checkpoint-0001-000000.pt.partial"
    left.write_bytes(b"half")
    CheckpointFolder(tmp_path).save(state(1))
    assert not left.exists()


def test_random_state_of_every_generator() -> None:
    checkpoint.seed_everything(3)
    random.random()
    saved = checkpoint.random_state()
    first = (random.random(), np.random.rand(), float(torch.rand(())))  # noqa: NPY002
    checkpoint.set_random_state(saved)
    assert (random.random(), np.random.rand(), float(torch.rand(()))) == first  # noqa: NPY002


def test_random_state_survives_the_file(tmp_path: Path) -> None:
    checkpoint.save_atomically({"format": checkpoint.FORMAT, "random": checkpoint.random_state()}, tmp_path / "r.pt")
    first = float(torch.rand(()))
    checkpoint.set_random_state(checkpoint.load(tmp_path / "r.pt")["random"])
    assert float(torch.rand(())) == first
