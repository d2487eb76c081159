"""Two gloo processes against one process with ghost BatchNorm: the same training within float error."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ise_fast.engine import checkpoint
from ise_fast.engine.distributed import World
from ise_fast.train import main
from tests.engine.conftest import final_weights


@pytest.mark.parametrize(("count", "size"), [(10, 3), (2, 4), (0, 2), (7, 1)])
def test_shares_cover_everything_once(count: int, size: int) -> None:
    worlds = [World(rank, size, torch.device("cpu")) for rank in range(size)]
    rows = [row for world in worlds for row in range(count)[world.share(count)]]
    assert rows == list(range(count))
    sizes = [len(range(count)[world.share(count)]) for world in worlds]
    assert max(sizes) - min(sizes) <= 1


def launch_two(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [*command, "-m", "ise_fast.train", *arguments], capture_output=True, text=True, timeout=500, check=False
    )


def test_two_processes_equal_one_with_ghost_batch_norm(flags: list[str], tmp_path: Path) -> None:
    # 81 images would not divide by two; neither do the 30 of the gallery by every batch. Chunks of 8: one a process.
    flags = [*flags, "--bn-chunk", "8", "--epochs", "1", "--iters", "3", "--checkpoint-step", "1"]
    flags += ["--keep-checkpoints", "9", "--cache", "memory"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert main([*flags, "--logs-dir", str(one)]) == 0
    done = launch_two([*flags, "--logs-dir", str(two)])
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("epoch 1/1 |") == 1

    # The first steps to float error; Adam turns tiny gradients of either sign into whole steps, so later ones drift.
    first, second = (checkpoint.load(f / "checkpoints/checkpoint-0000-000001.pt") for f in (one, two))
    assert torch.equal(first["labels"], second["labels"])
    torch.testing.assert_close(first["losses"], second["losses"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(first["memory"]["centroids"], second["memory"]["centroids"], atol=1e-5, rtol=0)
    moments = [state["optimizer"]["state"] for state in (first, second)]
    for parameter, state in moments[0].items():
        expected = state["exp_avg"]
        scale = float(expected.abs().max())
        assert scale > 0
        torch.testing.assert_close(moments[1][parameter]["exp_avg"], expected, atol=1e-4 * scale, rtol=0)
    for name, value in first["model"].items():
        if "running" in name:
            torch.testing.assert_close(second["model"][name], value, atol=1e-5, rtol=1e-5)

    figures = [json.loads((f / "metrics.json").read_text())["last"] for f in (one, two)]
    assert figures[0]["clusters"] == figures[1]["clusters"]
    assert figures[0]["loss"] == pytest.approx(figures[1]["loss"], rel=1e-3)
    drift = max(
        float((a - b).abs().max())
        for a, b in zip(final_weights(one).values(), final_weights(two).values(), strict=True)
    )
    assert drift < 3 * 3 * 3.5e-4  # three steps of Adam


def test_an_error_of_the_first_process_ends_all(flags: list[str], tmp_path: Path) -> None:
    done = launch_two([*flags, "--min-samples", "60", "--eval-step", "0", "--logs-dir", str(tmp_path / "r")])
    assert done.returncode != 0
    assert done.stderr.count("0 clusters, 4 needed") == 1
