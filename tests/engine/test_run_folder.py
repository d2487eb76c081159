"""Where a run lives: nobody's files are touched, one run at a time has a folder, and what cannot be made is said."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ise_fast.engine import checkpoint, run_folder
from ise_fast.engine.config import parse
from ise_fast.engine.errors import UsageError
from ise_fast.train import main
from tests.engine.conftest import assert_same_weights, final_weights


def error(capsys: pytest.CaptureFixture[str]) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(lines) == 1, lines
    return lines[0]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("place", ["weights/best.pt", "checkpoints/best.pt", "checkpoints/checkpoint-0001-000000.pt"])
def test_a_copied_checkpoint_goes_on_elsewhere(
    place: str, flags: list[str], straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "project"
    (mine / place).parent.mkdir(parents=True)
    shutil.copy(straight / "checkpoints/checkpoint-0001-000000.pt", mine / place)
    for name in run_folder.RUN_FILES:  # of another program, or of another run
        (mine / name).write_text("seed: 7\n")
    before = contents(mine)
    monkeypatch.chdir(tmp_path)
    assert main([*flags, "--resume", f"project/{place}"]) == 0
    assert contents(mine) == before
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["synthetic-ise"]
    assert_same_weights(final_weights(tmp_path / "logs/synthetic-ise"), final_weights(straight))


def test_a_checkpoint_of_another_run_does_not_enter_a_run(
    flags: list[str], straight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(straight, other)
    (other / "config.yaml").write_text((other / "config.yaml").read_text().replace("seed: 1", "seed: 2"))
    before = contents(other)
    path = straight / "checkpoints/checkpoint-0001-000000.pt"
    assert main([*flags, "--resume", str(path), "--logs-dir", str(other)]) == 2
    assert "holds another run" in error(capsys)
    assert contents(other) == before


@pytest.mark.parametrize("text", ["mine\n", "seed: 7\neps: 0.5\n", "[1, 2]\n", "{"])
def test_a_folder_of_another_program_stays_as_it_is(
    text: str, flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text(text)
    assert main([*flags, "--logs-dir", str(tmp_path)]) == 2
    assert "of another program" in error(capsys)
    assert contents(tmp_path) == {"config.yaml": text.encode()}


@pytest.mark.parametrize(
    "flag", ["--logs-dir", "--resume", "--data-dir", "--cache-dir", "--labels-csv", "--pretrained", "--config"]
)
def test_an_empty_path(flag: str, flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*flags, flag, ""]) == 2
    assert f"{flag}: expected a path" in error(capsys)


HOLD = """
import contextlib, sys, time
from pathlib import Path
from ise_fast.engine import run_folder
held = contextlib.ExitStack()
assert run_folder._lock(Path(sys.argv[1]), held)
print("held", flush=True)
time.sleep(600)
"""


def test_a_folder_in_use_is_refused_until_the_process_is_dead(
    flags: list[str], straight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(straight, folder)
    before = contents(folder)
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        for more in ([], ["--resume", "auto"], ["--resume", str(folder / "checkpoints/best.pt")]):
            assert main([*flags, *more, "--logs-dir", str(folder)]) == 2
            assert "in use by another run" in error(capsys)
            assert contents(folder) == before
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.communicate()
    assert main([*flags, "--resume", "auto", "--logs-dir", str(folder)]) == 0


def test_two_runs_that_start_at_once_get_two_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = parse([])
    with contextlib.ExitStack() as first, contextlib.ExitStack() as second, contextlib.ExitStack() as third:
        places = [run_folder.choose(config, held) for held in (first, second)]  # both before either writes
        folders = [run_folder.claim(place, held) for place, held in zip(places, (first, second), strict=True)]
        assert [folder.name for folder in folders] == ["synthetic-ise", "synthetic-ise-2"]
        assert run_folder.claim(run_folder.choose(config, third), third).name == "synthetic-ise-3"
        named = parse(["--logs-dir", "logs/new"])
        places = [run_folder.choose(named, held) for held in (first, second)]
        run_folder.claim(places[0], first)
        with pytest.raises(UsageError, match="in use"):
            run_folder.claim(places[1], second)


def test_numbers_with_gaps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number in ("", "-3", "-10", "-x-11", "-12-x"):
        (tmp_path / f"logs/synthetic-ise{number}/checkpoints").mkdir(parents=True)
        (tmp_path / f"logs/synthetic-ise{number}/checkpoints/checkpoint-0001-000000.pt").touch()
    (tmp_path / "logs/synthetic-ise-11").mkdir()  # failed before it saved anything
    with contextlib.ExitStack() as held:
        assert run_folder.choose(parse([]), held).folder.name == "synthetic-ise-11"
        assert run_folder.claim(run_folder.choose(parse([]), held), held).name == "synthetic-ise-12"
        with pytest.raises(UsageError, match="no checkpoint in logs/synthetic-ise-10/checkpoints can be read"):
            run_folder.choose(parse(["--resume", "auto"]), held)


def test_a_folder_is_no_checkpoint(straight: Path, flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*flags, "--resume", str(straight)]) == 2
    said = error(capsys)
    assert f"got the folder {straight}; the run in it goes on with --logs-dir {straight} --resume auto" in said
    with pytest.raises(UsageError, match=r"it is a folder; expected a file, such as checkpoints/best\.pt of a run"):
        checkpoint.load(straight)


def test_a_lock_file_where_folders_cannot_be_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl
    import stat

    flock = fcntl.flock

    def no_folders(descriptor: int, operation: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(9, "Bad file descriptor")
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", no_folders)
    with contextlib.ExitStack() as first, contextlib.ExitStack() as second:
        assert run_folder._lock(tmp_path, first)
        assert not run_folder._lock(tmp_path, second)
        first.close()
        assert run_folder._lock(tmp_path, second)


@pytest.mark.parametrize(
    ("place", "reason"),
    [("file/below", "Not a directory"), ("file/a/b", "Not a directory"), ("file", "got the file"),
     ("x" * 300, "File name too long"), ("/proc/nobody/run", "No such file or directory")],
)  # fmt: skip
def test_a_folder_that_cannot_be_made(
    place: str, reason: str, flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main([*flags, "--logs-dir", str(tmp_path / place)]) == 2
    said = error(capsys)
    assert "--logs-dir" in said
    assert reason in said
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
