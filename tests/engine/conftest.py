"""A data set of a few dozen tiny images in the market1501 layout, and flags that train on it in about a second."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import begin_forked

from ise_fast.data import SyntheticSpec, generate_synthetic
from ise_fast.engine.step import TrainStep
from ise_fast.methods import Batch
from ise_fast.train import main

TINY = SyntheticSpec(
    train_identities=10, test_identities=6, cameras=3, train_images=80, query_images=12, gallery_images=30,
    distractors=3, junk=2, height=32, width=16, seed=5,
)  # fmt: skip
FLAGS = shlex.split(
    "--preset synthetic --dataset market1501 --height 32 --width 16 -b 16 --num-instances 4 --iters 4 --epochs 2 "
    "--k1 8 --k2 2 --eps 0.6 --min-samples 2 --device cpu --no-progress --no-tensorboard --no-report -j 1 "
    "--test-batch-size 64"
)


@pytest.fixture(autouse=True)
def draw_no_curves(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The figure takes longer than a tiny run; a test that looks at it is marked `curves`."""
    if request.node.get_closest_marker("curves") is None:
        monkeypatch.setattr("ise_fast.engine.figure.draw_curves", lambda history, path: None)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "Market-1501-v15.09.15"
    generate_synthetic(root, TINY, workers=1)
    return root.parent


@pytest.fixture
def flags(data_dir: Path) -> list[str]:
    """Flags of a tiny run, without --logs-dir."""
    return [*FLAGS, "--data-dir", str(data_dir)]


@pytest.fixture(scope="session")
def straight(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with `flags` from beginning to end."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    assert main([*FLAGS, "--data-dir", str(data_dir), "--logs-dir", str(folder)]) == 0
    return folder


def train_unheard(flags: list[str], threads: int, said: str = os.devnull) -> int:
    """Train in a process of its own, which says nothing but to that file; returns the exit status."""
    begin_forked(threads, said)
    return main(flags)


@contextmanager
def watched_steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Batch, float]]]:
    """Batch and progress of every step that is taken inside."""
    seen: list[tuple[Batch, float]] = []
    step = TrainStep.__call__

    def watched(self: TrainStep, images: torch.Tensor, batch: Batch, progress: float) -> Any:
        seen.append((batch, progress))
        return step(self, images, batch, progress)

    with monkeypatch.context() as patch:
        patch.setattr(TrainStep, "__call__", watched)
        yield seen


def final_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Weights of the newest checkpoint of a run."""
    newest = max((folder / "checkpoints").glob("checkpoint-*.pt"))
    weights: dict[str, torch.Tensor] = torch.load(newest, weights_only=True)["model"]
    return weights


def assert_same_weights(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different
