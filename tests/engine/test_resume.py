"""Never lose work: a run that was killed, anywhere, and resumed ends with the bits of one that was not."""

from __future__ import annotations

import errno
import io
import json
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ise_fast.engine import checkpoint
from ise_fast.engine.config import parse
from ise_fast.engine.features import FeatureExtractor
from ise_fast.engine.run_log import RunLog
from ise_fast.engine.step import TrainStep
from ise_fast.train import main
from tests.engine.conftest import assert_same_weights, final_weights, train_unheard


def newest_change(folder: Path) -> float:
    return max((p.stat().st_mtime for p in folder.glob("**/*.pt")), default=0.0)


def after_step(patch: pytest.MonkeyPatch, moment: int, act: Callable[[], None]) -> None:
    """Let `act` happen inside the step of iteration `moment`, counted from 1 over all epochs."""
    steps = iter(range(1, 100))
    step = TrainStep.__call__

    def acts(self: TrainStep, *arguments: Any) -> Any:
        result = step(self, *arguments)
        if next(steps) == moment:
            act()
        return result

    patch.setattr(TrainStep, "__call__", acts)


def assert_same_run(first: Path, second: Path) -> None:
    """The same weights to the bit, and the same figures of every epoch."""
    assert_same_weights(final_weights(first), final_weights(second))
    assert figures(first) == figures(second)


def figures(folder: Path) -> list[dict[str, Any]]:
    """The epochs' records without the times."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if k != "seconds"} for record in records]


def test_the_same_seed_gives_the_same_bits(flags: list[str], tmp_path: Path, straight: Path) -> None:
    assert main([*flags, "--logs-dir", str(tmp_path / "again")]) == 0
    assert main([*flags, "--logs-dir", str(tmp_path / "other"), "--seed", "2"]) == 0
    assert_same_run(straight, tmp_path / "again")
    weight = "backbone.0.weight"
    assert not torch.equal(final_weights(straight)[weight], final_weights(tmp_path / "other")[weight])


def test_killed_at_random_moments(flags: list[str], tmp_path: Path, processes: Any, straight: Path) -> None:
    folder = tmp_path / "killed"
    # A checkpoint after every iteration: many kills fall into the writing of one.
    flags = [*flags, "--checkpoint-step", "1", "--keep-checkpoints", "1", "--logs-dir", str(folder), "--resume", "auto"]
    moments = random.Random()
    for _ in range(3):
        process = processes.Process(target=train_unheard, args=(flags, torch.get_num_threads()))
        process.start()
        # Wait until the run writes, then for a random moment more.
        before = newest_change(folder)
        while process.is_alive() and newest_change(folder) == before:
            time.sleep(0.01)
        time.sleep(moments.uniform(0.0, 0.5))
        process.kill()
        process.join()
    assert main(flags) == 0
    assert_same_run(straight, folder)


@pytest.mark.parametrize("moment", [1, 4, 7])
def test_killed_inside_an_iteration(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, straight: Path, moment: int
) -> None:
    """The same without processes: an exception that nobody handles ends the run inside iteration `moment`."""
    killed = tmp_path / "killed"
    flags = [*flags, "--checkpoint-step", "3", "--logs-dir", str(killed)]

    def dies() -> None:
        raise KeyError("killed")

    with monkeypatch.context() as patch:
        after_step(patch, moment, dies)
        with pytest.raises(KeyError, match="killed"):
            main(flags)
    assert main([*flags, "--resume", "auto"]) == 0
    assert_same_run(straight, killed)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("moment", [2, 4])
def test_a_request_to_stop_saves_and_says_how_to_go_on(
    flags: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    straight: Path,
    signum: signal.Signals,
    moment: int,
) -> None:
    folder = tmp_path / "stopped"
    flags = [*flags, "--logs-dir", str(folder)]
    with monkeypatch.context() as patch:
        after_step(patch, moment, lambda: os.kill(os.getpid(), signum))
        assert main(flags) == 128 + signum
    assert "go on with the same command and --resume auto" in capsys.readouterr().err
    assert [p.name for p in (folder / "checkpoints").glob("checkpoint-*")] == [f"checkpoint-0000-{moment:06d}.pt"]
    assert main([*flags, "--resume", "auto"]) == 0
    assert_same_run(straight, folder)


def test_stopped_while_extracting_features(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, straight: Path
) -> None:
    folder = tmp_path / "stopped"
    flags = [*flags, "--logs-dir", str(folder)]
    extractions = iter(range(1, 100))
    extract = FeatureExtractor.__call__

    def interrupted(self: FeatureExtractor, *arguments: Any, **more: Any) -> Any:
        if (
            next(extractions) == 4
        ):  # the evaluation of the first epoch, after two of the untrained network and clustering
            os.kill(os.getpid(), signal.SIGTERM)
        return extract(self, *arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(FeatureExtractor, "__call__", interrupted)
        assert main(flags) == 128 + signal.SIGTERM
    assert (folder / "checkpoints/checkpoint-0000-000004.pt").exists()
    assert main([*flags, "--resume", "auto"]) == 0
    assert_same_run(straight, folder)


def test_killed_while_saving(flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, straight: Path) -> None:
    killed = tmp_path / "killed"
    saves = iter(range(1, 100))
    save = torch.save

    def dies(state: Any, file: Any) -> None:
        if next(saves) == 2:
            file.write(b"half")
            raise KeyError("killed")
        save(state, file)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", dies)
        with pytest.raises(KeyError, match="killed"):
            main([*flags, "--logs-dir", str(killed)])
    assert main([*flags, "--logs-dir", str(killed), "--resume", "auto"]) == 0
    assert_same_run(straight, killed)


def test_killed_before_the_best_was_marked(flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.CheckpointFolder, "mark_best", lambda self, path: {}["killed"])
        with pytest.raises(KeyError, match="killed"):
            main([*flags, "--logs-dir", str(folder)])
    assert not (folder / "checkpoints/best.pt").exists()
    main([*flags, "--logs-dir", str(folder), "--resume", "auto", "--epochs", "1"])
    assert checkpoint.load(folder / "checkpoints/best.pt")["epoch"] == 1


class FullDisk:
    """From `fill` on, every write to a file of `folder` whose path holds `name` fails as on a full disk."""

    def __init__(self, patch: pytest.MonkeyPatch, folder: Path, name: str) -> None:
        self.full = False
        open_file, fsync = io.open, os.fsync

        class Full(io.FileIO):
            def write(inner, data: Any) -> int:
                if self.full:
                    raise OSError(errno.ENOSPC, "No space left on device")
                return super().write(data)

        def opens(file: Any, mode: str = "r", buffering: int = -1, *arguments: Any, **options: Any) -> Any:
            if str(folder) not in str(file) or name not in str(file) or "r" in mode:
                return open_file(file, mode, buffering, *arguments, **options)
            raw = io.BufferedWriter(Full(file, mode.replace("b", "")))
            return raw if "b" in mode else io.TextIOWrapper(raw)

        def syncs(descriptor: int) -> None:
            if self.full and name in os.readlink(f"/proc/self/fd/{descriptor}"):
                raise OSError(errno.ENOSPC, "No space left on device")
            fsync(descriptor)

        patch.setattr("builtins.open", opens)
        patch.setattr(io, "open", opens)
        patch.setattr(os, "fsync", syncs)


@pytest.mark.parametrize("name", ["checkpoint-0002", "metrics.jsonl", "metrics.json.", "config.yaml", "train.log"])
def test_a_full_disk_ends_the_run_with_a_usable_checkpoint(
    name: str,
    flags: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    straight: Path,
) -> None:
    folder = tmp_path / "full"
    flags = [*flags, "--logs-dir", str(folder)]
    with monkeypatch.context() as patch:
        disk = FullDisk(patch, folder, name)
        disk.full = name == "config.yaml"  # the first file of a run
        after_step(patch, 5, lambda: setattr(disk, "full", True))  # the first iteration of the second epoch
        status = main(flags)
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert err.count("No space left on device" if name == "train.log" else "the disk is full") == 1
    if name == "train.log":  # a log is not worth a run
        assert status == 0
        assert_same_run(straight, folder)
        return
    assert status == 1
    said = "no checkpoint had been saved before" if name == "config.yaml" else r"checkpoint-000[12]-000000.pt is usable"
    assert re.search(rf"cannot write \S*{name.rstrip('.')}.*{said}.*--resume auto", err)
    assert not list(folder.glob("**/*.partial"))
    assert main([*flags, "--resume", "auto"]) == 0
    assert_same_run(straight, folder)


class GoneAfter(io.StringIO):
    """A console whose reader ends after so many lines."""

    def __init__(self, lines: int) -> None:
        super().__init__()
        self.left = lines

    def write(self, text: str) -> int:
        self.left -= text.count("\n")
        if self.left < 0:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")
        return super().write(text)


@pytest.mark.parametrize("lines", [None, 0, 5])  # None: closed before the start
def test_a_console_that_is_gone_ends_no_run(
    lines: int | None, flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, straight: Path
) -> None:
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("sys.stderr", None if lines is None else GoneAfter(lines))
        assert main([*flags, "--logs-dir", str(folder)]) == 0
    assert_same_run(straight, folder)
    said = [line.split(" ", 3)[3] for line in (folder / "train.log").read_text().splitlines()]
    assert [line.split()[0] for line in said if not line.startswith("the console")] == [
        *("untrained", "epoch", "epoch", "untrained", "best", "last", "results")
    ]
    assert sum(line.startswith("the console cannot be written") for line in said) == 1


def test_resume_from_a_path_keeps_the_best(flags: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert main([*flags, "--logs-dir", str(folder), "--keep-checkpoints", "5"]) == 0
    whole = final_weights(folder)
    best = json.loads((folder / "metrics.json").read_text())["best"]
    first = folder / "checkpoints/checkpoint-0001-000000.pt"
    assert main([*flags, "--resume", str(first)]) == 0
    assert_same_weights(final_weights(folder), whole)
    again = json.loads((folder / "metrics.json").read_text())["best"]
    assert (again["epoch"], again["mAP"]) == (best["epoch"], best["mAP"])
    assert [record["epoch"] for record in figures(folder)] == [0, 1, 2]


def test_resume_with_other_settings_is_refused(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert main([*flags, "--logs-dir", str(folder), "--epochs", "1"]) == 0
    assert main([*flags, "--logs-dir", str(folder), "--resume", "auto", "--eps", "0.5"]) == 2
    assert "--eps 0.6 -> 0.5" in capsys.readouterr().err
    assert main([*flags, "--logs-dir", str(folder)]) == 2
    assert "holds a run" in capsys.readouterr().err


def test_a_finished_run_that_is_resumed(
    flags: list[str], tmp_path: Path, straight: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = tmp_path / "run"
    shutil.copytree(straight, folder)
    before = {name: (folder / name).read_text() for name in ("config.yaml", "train.log")}
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    again = [*flags, "--epochs", "1", "--test-batch-size", "32", "--resume"]
    assert main([*again, "auto", "--logs-dir", str(folder)]) == 0
    said = capsys.readouterr().err
    assert "2 epochs are done already: nothing is left to train" in said
    assert "--test-batch-size 64 -> 32: features are rounded differently" in said
    assert re.search(r"threads: \d+ then, 77 now: sums are .* OMP_NUM_THREADS=\d+ keeps the bits", said)
    assert (folder / "config.yaml").read_text() == before["config.yaml"]
    assert (folder / "train.log").read_text().startswith(before["train.log"])
    newest = max((straight / "checkpoints").glob("checkpoint-*.pt"))
    assert main([*again, str(newest), "--logs-dir", str(tmp_path / "new")]) == 0
    where = f"results are in {tmp_path / 'new'}: metrics.json metrics.jsonl config.yaml environment.json train.log\n"
    assert where in capsys.readouterr().err


@pytest.mark.parametrize(("extra", "kept"), [([], False), (["--resume", "auto"], True)])
def test_the_log_of_a_first_epoch_that_was_killed(extra: list[str], kept: bool, tmp_path: Path) -> None:
    (tmp_path / "train.log").write_text("before\n")
    run_log = RunLog(tmp_path, checkpoint.CheckpointFolder(tmp_path / "checkpoints"))
    run_log.open(parse(["--no-tensorboard", *extra]))
    run_log.close()
    assert (tmp_path / "train.log").read_text() == "before\n" * kept


def test_no_event_files_in_a_folder_that_tensorboard_cannot_take(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"l\xfcg")
    run_log = RunLog(folder, checkpoint.CheckpointFolder(folder / "checkpoints"))
    run_log.open(parse(["--tensorboard"]))
    run_log.close()
    assert r"no event files: TensorBoard takes no folder whose name is not UTF-8, such as" in (
        folder / "train.log"
    ).read_text(encoding="utf-8")
    assert not (folder / "tensorboard").exists()


def test_a_setting_newer_than_the_checkpoint_stands_for_its_default(
    flags: list[str], tmp_path: Path, straight: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The program that saved did not know it, so it cannot have been used."""
    newest = max((straight / "checkpoints").glob("checkpoint-*.pt"))
    content = dict(checkpoint.load(newest))
    content["config"] = {k: v for k, v in content["config"].items() if k not in {"clip_grad", "warmup_epochs", "quiet"}}
    older = checkpoint.CheckpointFolder(tmp_path / "older", keep=1).save(content)
    again = [*flags, "--resume", str(older)]
    for changed, message in (
        (["--clip-grad", "0.5"], "--clip-grad 0.0 -> 0.5"),
        (["--warmup-epochs", "3"], "--warmup-epochs 0 -> 3"),
    ):
        assert main([*again, *changed, "--logs-dir", str(tmp_path / "new")]) == 2
        assert message in capsys.readouterr().err
    assert main([*again, "--quiet", "--logs-dir", str(tmp_path / "new")]) == 0
