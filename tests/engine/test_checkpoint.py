from __future__ import annotations

import errno
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ise_fast import evaluate
from ise_fast.engine import checkpoint, checkpoint_parts
from ise_fast.engine.checkpoint import CheckpointFolder
from ise_fast.engine.errors import RunError, UsageError
from ise_fast.train import main


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


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep=3)
    folder.save({**state(1), "w": torch.arange(500.0)})
    newest = folder.save({**state(2), "w": torch.arange(500.0)})
    content = newest.read_bytes()
    for place in range(0, len(content), 97):  # also names, padding, the table of contents and the digest itself
        flipped = bytearray(content)
        flipped[place] ^= 1 << (place % 8)
        newest.write_bytes(flipped)
        try:
            assert torch.equal(checkpoint.load(newest)["w"], torch.arange(500.0))  # the mark of the digest was hit
            assert len(content) - place <= 82
        except UsageError as error:
            assert len(str(error).splitlines()) == 1  # noqa: PT017 - which bytes are refused is not the point
    found = folder.load_newest()
    assert found is not None
    newest.write_bytes(content[:700] + bytes([content[700] ^ 1]) + content[701:])
    found = folder.load_newest()
    assert found is not None
    assert found[1]["epoch"] == 1


@pytest.mark.parametrize("place", [0.2, 0.5, 0.8])
def test_a_file_without_digest_is_checked_against_its_sums(tmp_path: Path, place: float) -> None:
    path = tmp_path / "old.pt"
    torch.save({**state(1), "w": torch.arange(5000.0)}, path)
    assert torch.equal(checkpoint.load(path)["w"], torch.arange(5000.0))
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 16
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"cannot be read.*check sum"):
        checkpoint.load(path)


def test_torch_names_no_reason_but_the_system_does(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        checkpoint.digest.save({"w": torch.ones(9)}, Path("/dev/full"))
    assert caught.value.errno == errno.ENOSPC
    assert "the disk is full" in checkpoint.reason(caught.value, tmp_path / "new" / "x")
    assert checkpoint.reason(PermissionError(errno.EACCES, "Permission denied"), tmp_path) == "Permission denied"
    assert checkpoint.reason(OSError(errno.EROFS, "Read-only file system"), tmp_path) == "Read-only file system"


def test_going_back_keeps_the_later_checkpoints(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep=2)
    for epoch in (7, 8, 3, 4, 5):
        folder.save(state(epoch))
    assert [int(path.name[11:15]) for path in folder.all()] == [4, 5, 7, 8]


WRONG: dict[str, Any] = {
    "config": "text", "epoch": "3", "iteration": -1, "model": {"w": 1.0}, "optimizer": {}, "scaler": [],
    "random": {}, "memory": torch.ones(3), "labels": [1, 2], "losses": 0.5, "record": None,
    "history": [1, 2], "best": {"epoch": 2},
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("missing", [True, False])
def test_an_incomplete_checkpoint_is_refused_in_one_line(
    name: str, missing: bool, straight: Path, flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(straight / "checkpoints/checkpoint-0002-000000.pt", weights_only=True)
    if missing:
        del content[name]
    else:
        content[name] = WRONG[name]
    path = tmp_path / "x.pt"
    torch.save(content, path)
    commands = [lambda: main([*flags, "--resume", str(path), "--logs-dir", str(tmp_path / "r")])]
    if name in checkpoint_parts.FOR_EVALUATION:
        commands.append(lambda: evaluate.main(["--checkpoint", str(path), "--device", "cpu"]))
    for command in commands:
        assert command() == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
        assert len(lines) == 1
        assert repr(name) in lines[0]
    assert not (tmp_path / "r").exists()


def test_a_state_of_another_shape_is_refused(
    straight: Path, flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i, change in enumerate(
        (
            lambda s: s["optimizer"]["state"][0].update(exp_avg=torch.ones(3)),
            lambda s: s["optimizer"]["param_groups"].pop(),
            lambda s: s.update(random=[{"python": 1}]),
            lambda s: s["config"].update(k1="many"),
        )
    ):
        content = torch.load(straight / "checkpoints/checkpoint-0002-000000.pt", weights_only=True)
        change(content)
        torch.save(content, tmp_path / f"{i}.pt")
        assert main([*flags, "--resume", str(tmp_path / f"{i}.pt"), "--logs-dir", str(tmp_path / "r")]) == 2
        assert len([line for line in capsys.readouterr().err.splitlines() if "error" in line.lower()]) == 1
    assert not (tmp_path / "r").exists()
