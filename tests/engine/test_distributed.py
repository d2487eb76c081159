"""Two gloo processes against one process with ghost BatchNorm: the same training within float error."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from ise_fast.engine import checkpoint
from ise_fast.engine.distributed import World
from ise_fast.train import main
from tests.engine.conftest import assert_same_weights, final_weights, train_unheard


@pytest.mark.parametrize(("count", "size"), [(10, 3), (2, 4), (0, 2), (7, 1)])
def test_shares_cover_everything_once(count: int, size: int) -> None:
    worlds = [World(rank, size, torch.device("cpu")) for rank in range(size)]
    rows = [row for world in worlds for row in range(count)[world.share(count)]]
    assert rows == list(range(count))
    sizes = [len(range(count)[world.share(count)]) for world in worlds]
    assert max(sizes) - min(sizes) <= 1


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def train_one_of_two(arguments: list[str], rank: int, port: int, said: str) -> None:
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": 2, "RANK": rank, "LOCAL_RANK": rank}
    os.environ.update({name: str(value) for name, value in place.items()})
    sys.exit(train_unheard(arguments, 1, said))


@pytest.fixture
def train_two(processes: Any, tmp_path: Path) -> Callable[[list[str]], str]:
    """Train in two processes with the environment that torchrun gives, whose start takes longer than the training.

    Returns what they said.
    """

    def train(arguments: list[str]) -> str:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        said = tmp_path / f"said-{port}"
        both = [
            processes.Process(target=train_one_of_two, args=(arguments, rank, port, str(said))) for rank in range(2)
        ]
        for process in both:
            process.start()
        for process in both:
            process.join()
        assert [process.exitcode for process in both] == [0, 0], said.read_text()
        return said.read_text()

    return train


def stop_two(arguments: list[str], folder: Path, checkpoint: str, signum: signal.Signals) -> tuple[int, str]:
    """Start two processes, and signal them when that checkpoint is there: all of them, or torchrun to end them."""
    command = [*TORCHRUN, "-m", "ise_fast.train", *arguments]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not (folder / "checkpoints" / checkpoint).exists():
        assert run.poll() is None, run.communicate()[1]
        time.sleep(0.005)
    everybody = [run.pid, *workers_of(run.pid)]
    assert len(everybody) == 3
    for process in everybody if signum == signal.SIGKILL else [run.pid]:
        os.kill(process, signum)
    while not all(has_ended(process) for process in everybody[1:]):
        time.sleep(0.05)
    try:
        _, err = run.communicate(timeout=60)
    except subprocess.TimeoutExpired:  # torchrun waits for a lock of its own, which it held when the signal came
        run.kill()
        _, err = run.communicate()
    return run.returncode, err


def has_ended(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def workers_of(process: int) -> list[int]:
    """The processes that `process` started."""
    return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def test_two_processes_killed_and_resumed_end_with_the_same_bits(
    flags: list[str], tmp_path: Path, train_two: Callable[[list[str]], str]
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    flags = [*flags, "--bn-chunk", "8", "--checkpoint-step", "1", "--keep-checkpoints", "9", "--print-freq", "1"]
    # Many iterations: the run must not be over before a busy machine lets this process see the checkpoint.
    flags += ["--cache", "memory", "--eval-step", "0", "--iters", "12"]
    train_two([*flags, "--logs-dir", str(whole)])
    flags += ["--logs-dir", str(stopped), "--resume", "auto"]
    status, _ = stop_two(flags, stopped, "checkpoint-0000-000002.pt", signal.SIGKILL)
    assert status == -signal.SIGKILL
    status, err = stop_two(flags, stopped, "checkpoint-0001-000001.pt", signal.SIGTERM)
    assert status != 0
    assert err.count("go on with the same command and --resume auto") >= 1, err
    assert "resumed from" in train_two(flags)
    assert_same_weights(final_weights(whole), final_weights(stopped))
    first, second = (checkpoint.load(f / "checkpoints/checkpoint-0002-000000.pt") for f in (whole, stopped))
    assert torch.equal(first["labels"], second["labels"])
    for parameter, state in first["optimizer"]["state"].items():
        assert torch.equal(state["exp_avg_sq"], second["optimizer"]["state"][parameter]["exp_avg_sq"])


def test_two_processes_equal_one_with_ghost_batch_norm(
    flags: list[str], tmp_path: Path, train_two: Callable[[list[str]], str]
) -> None:
    # 81 images would not divide by two; neither do the 30 of the gallery by every batch. Chunks of 8: one a process.
    flags = [*flags, "--bn-chunk", "8", "--epochs", "1", "--iters", "3", "--checkpoint-step", "1"]
    flags += ["--keep-checkpoints", "9", "--cache", "memory"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert main([*flags, "--logs-dir", str(one)]) == 0
    assert train_two([*flags, "--logs-dir", str(two)]).count("epoch 1/1 |") == 1

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


def test_two_processes_give_a_memory_of_images_and_its_labels_of_one(
    flags: list[str], tmp_path: Path, train_two: Callable[[list[str]], str]
) -> None:
    """SpCL, whose labels of the second epoch are made of the memory; some batches are mixed."""
    # SGD, unlike Adam, does not turn the last bit of tiny gradients into steps.
    words = "--method spcl --eps-gap 0.05 --optimizer sgd --lr 0.002 --mix mixup --mix-probability 0.4 --bn-chunk 8"
    flags = [*flags, *words.split(), "--iters", "3", "--eval-step", "0", "--checkpoint-step", "1"]
    flags += ["--keep-checkpoints", "9", "--cache", "memory"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert main([*flags, "--logs-dir", str(one)]) == 0
    train_two([*flags, "--logs-dir", str(two)])
    tables = []
    for moment in ("0000-000001", "0000-000002", "0001-000000", "0001-000001", "0002-000000"):
        first, second = (checkpoint.load(f / f"checkpoints/checkpoint-{moment}.pt") for f in (one, two))
        assert torch.equal(first["labels"], second["labels"])
        assert first["labeller"] == pytest.approx(second["labeller"])
        for name in ("table", "sums"):
            torch.testing.assert_close(second["memory"][name], first["memory"][name], atol=2e-5, rtol=0)
        assert torch.equal(first["memory"]["groups"], second["memory"]["groups"])
        tables.append(first["memory"]["table"])
    still = [torch.equal(before, after) for before, after in pairwise(tables)]
    assert any(still)  # a mixed batch
    assert not all(still)


def test_an_error_of_the_first_process_ends_all(flags: list[str], tmp_path: Path) -> None:
    arguments = [*flags, "--min-samples", "60", "--eval-step", "0", "--logs-dir", str(tmp_path / "r")]
    command = [*TORCHRUN, "-m", "ise_fast.train", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr.count("0 clusters, 4 needed") == 1


TOGETHER = """
import sys
from pathlib import Path
import numpy as np
import torch
from ise_fast.data import ImageStore, ReIDDataset, Split
from ise_fast.engine import distributed, image_list
from ise_fast.engine.errors import UsageError
from ise_fast.engine.features import FeatureExtractor
from ise_fast.engine.precision import Precision

world = distributed.start("cpu")
network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 5))
network.load_state_dict({"1.weight": torch.arange(960.0).view(5, 192), "1.bias": torch.zeros(5)})
extract = FeatureExtractor(network, world, Precision("fp32", world.device), 4)
for count in (0, 1, 2, 3, 7):
    images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(count, 3, 8, 8).contiguous()
    rows = extract(ImageStore([Path(str(i)) for i in range(count)], (8, 8), 1, images, {}))
    assert rows.shape == (count, 5 if count else 0), rows.shape
    assert len(set(rows.sum(1).tolist())) == count

def dataset(train, gallery, ids):
    split = lambda n, ids=None: Split(tuple(Path(f"/x/{i}.png") for i in range(n)), ids, None)
    return ReIDDataset("folder", Path("/x"), split(train), split(2), split(gallery, ids), (8, 8))

image_list.require_same_dataset(dataset(5, 3, np.arange(3)), world)
for other in (dataset(4, 3, np.arange(3)), dataset(5, 2, np.arange(2)), dataset(5, 3, np.arange(3) + 1)):
    try:
        image_list.require_same_dataset(other if world.rank == 2 else dataset(5, 3, np.arange(3)), world)
    except UsageError as error:
        assert "process 2" in str(error)
    else:
        raise AssertionError

def fails():
    if world.rank == 1:
        raise UsageError("no such folder")
    return 1

try:
    world.together(fails)
except UsageError as error:
    assert "no such folder" in str(error)
else:
    raise AssertionError
try:
    image_list.require_same_choice(np.arange(3 + (world.rank == 0)), world)
except UsageError as error:
    assert "[4, 3, 3]" in str(error)
else:
    raise AssertionError
print("done", flush=True)
distributed.stop()
"""


def test_three_processes_with_few_images_or_other_ones(tmp_path: Path) -> None:
    """Rows of fewer images than processes; lists, choices and errors that differ end on every process."""
    (tmp_path / "together.py").write_text(TOGETHER)
    command = [*TORCHRUN[:-1], "3", str(tmp_path / "together.py")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.stdout.count("done") == 3, done.stderr
    assert done.returncode == 0, done.stderr
