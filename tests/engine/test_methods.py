"""Every method on a tiny data set: trained, killed, resumed, by several sources of labels."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from ise_fast.engine import run_images
from ise_fast.methods import METHODS
from ise_fast.train import main
from tests.engine.conftest import FLAGS, train_unheard
from tests.engine.test_resume import after_step, assert_same_run

RUNS = {
    "ise": "",
    "ise on k-means": "--labels kmeans --clusters 8 --warm-start",
    "cluster-contrast": "--distance cosine --eps 0.02",
    "spcl": "--eps-gap 0.05",
    "spcl on k-means": "--labels kmeans --clusters 8",
    "ise on self-paced": "--labels self-paced --eps-gap 0.05",
    "cap": "--cross-epoch 1 --hard-negatives 3 --iters 0",
    "cap on k-means": "--labels kmeans --clusters 3",
    "ise on infomap": "--labels infomap --neighbours 6 --max-noise 1",
    "ise with CutMix": "--mix cutmix --mix-probability 0.6 --label-smoothing 0.1",
    "spcl with mixed features": "--mix feature --label-smoothing 0.1 --eps-gap 0.05",
    "cap with mixup": "--mix mixup --mix-alpha 0.3",
    "cluster-contrast with mixed features": "--distance cosine --eps 0.02 --mix feature --label-smoothing 0.1",
    "cluster-contrast on k-means": "--labels kmeans --clusters 8 --memory-mode kalman",
    "mmcl": "--hard-share 0.05 --single-epochs 1 --momentum-epochs 2",
    "buc": "--first-epochs 1 --step-epochs 1 --merge-share 0.2",
    "buc before its first merging": "--first-epochs 2",
    "cluster-contrast on bottom-up": "--labels bottom-up --first-epochs 1 --merge-share 0.3",
    "pplr": "--parts 2 --agreement-neighbours 6 --refine-epoch 1",
    "softsim": "--hard-epochs 1 --similar 3",
    "cycas": "--frame-window 5",
    "ise-spcl": "--eps-gap 0.05",
    "ise-cap": "--supports 2 --cross-epoch 1",
    "mmcl with mixup": "--mix mixup --hard-share 0.05",
    "softsim with hard labels": "--hard-epochs 2",
}


def test_every_method_is_tried() -> None:
    assert {name.split()[0] for name in RUNS} == METHODS.keys()


@pytest.fixture(scope="module")
def whole(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a run that nobody killed."""

    @cache
    def train(name: str) -> Path:
        folder = tmp_path_factory.mktemp("whole") / "run"
        assert main([*FLAGS, "--data-dir", str(data_dir), *flags_of(name), "--logs-dir", str(folder)]) == 0
        return folder

    return train


def flags_of(name: str) -> list[str]:
    if "infomap" in name:
        pytest.importorskip("infomap")
    return ["--method", name.split()[0], *RUNS[name].split(), "--eval-step", "2"]


@pytest.mark.parametrize("name", RUNS)
def test_killed_and_resumed(
    name: str, whole: Callable[[str], Path], flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies() -> None:
        raise KeyError("killed")

    killed = [*flags, *flags_of(name), "--checkpoint-step", "2", "--logs-dir", str(tmp_path), "--resume", "auto"]
    for moment in (3, 4):  # inside the first epoch, then inside the second one
        with monkeypatch.context() as patch:
            after_step(patch, moment, dies)
            with pytest.raises(KeyError, match="killed"):
                main(killed)
    assert main(killed) == 0
    assert_same_run(whole(name), tmp_path)
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["clusters"] >= 2
    assert 0 < last["loss"] < 100


def train_until_killed(flags: list[str], step: int, later: float, threads: int) -> None:
    """Train in a process of its own, which the system kills some seconds after a step."""

    def kill() -> None:
        time.sleep(later)
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.MonkeyPatch.context() as patch:
        after_step(patch, step, threading.Thread(target=kill).start)
        train_unheard(flags, threads)
    time.sleep(600)  # done before the signal came


@pytest.mark.parametrize("name", METHODS)
def test_sigkill(name: str, whole: Callable[[str], Path], flags: list[str], tmp_path: Path, processes: Any) -> None:
    killed = [*flags, *flags_of(name), "--checkpoint-step", "1", "--keep-checkpoints", "1"]
    killed += ["--logs-dir", str(tmp_path), "--resume", "auto"]
    moments = random.Random()
    for step in (3, 2):  # in the first epoch; after resuming, at its end or later
        arguments = (killed, step, moments.uniform(0, 0.1), torch.get_num_threads())
        process = processes.Process(target=train_until_killed, args=arguments)
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    assert main(killed) == 0
    assert_same_run(whole(name), tmp_path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--method cap", "--method: cap needs the cameras of the training images, and none are known"),
        (
            "--method cycas",
            "--method: cycas needs the frames of the training images, and none are known; --labels-csv may tell them",
        ),
        ("--labels by-frame", "--labels: by-frame needs the frames of the training images, and none are known"),
        (
            "--labels infomap",
            "--labels: infomap needs the package infomap, which is not installed: pip install infomap",
        ),
    ],
)
def test_what_a_method_lacks_is_said_before_images_are_decoded(
    words: str,
    said: str,
    flags: list[str],
    data_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def decode(*_: object, **__: object) -> None:
        raise AssertionError("images were decoded")

    monkeypatch.setattr(run_images, "open_images", decode)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    shutil.copytree(data_dir / "Market-1501-v15.09.15/bounding_box_train", tmp_path / "images")
    place = ["--dataset", "folder", "--data-dir", str(tmp_path / "images"), "--identity-pattern", r"(?P<id>\d+)_"]
    assert main([*flags, *place, *words.split(), "--logs-dir", str(tmp_path / "run")]) == 2
    assert said in capsys.readouterr().err
