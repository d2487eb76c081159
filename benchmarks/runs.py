"""Many short trainings, recorded one line each, so that a stopped program goes on where it was."""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from benchmarks import machine

RESULTS = Path(__file__).parent / "results"


class NamedRun(Protocol):
    """A training and what decides it: a named tuple."""

    def _asdict(self) -> dict[str, Any]: ...


RunT = TypeVar("RunT", bound=NamedRun)


class Records:
    """Runs that are done, one line each after a line about the machine.

    Args:
        path: of the file; made if it is not there.
        kind: of the runs, with a method `of` that reads one from its record.
    """

    def __init__(self, path: Path, kind: Any) -> None:
        self.path = path
        self.kind = kind
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        self.runs: list[dict[str, Any]] = lines[1:]
        self.machine: dict[str, Any] = lines[0]["machine"] if lines else machine.describe(torch.device("cpu"))
        if not lines:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._append({"machine": self.machine})

    def add(self, run: NamedRun, result: dict[str, Any]) -> None:
        self.runs.append({**run._asdict(), **result})
        self._append(self.runs[-1])

    def left(self, runs: Iterable[RunT]) -> list[RunT]:
        done = {self.kind.of(record) for record in self.runs}
        return [run for run in runs if run not in done]

    def _append(self, line: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")


# Importing torch and its compiler takes as long as two epochs: one server does it, and every run is a fork of it.
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["ise_fast.train", "torch._dynamo"])


def launch(flags: Sequence[str], further: Sequence[str]) -> dict[str, Any]:
    """Scores of the last epoch of a training in a process of its own with one thread.

    Raises:
        subprocess.CalledProcessError: if the run fails; with what it said.
    """
    with tempfile.TemporaryDirectory() as folder:
        # Channels-last is a tenth faster on a CPU.
        common = ["--eval-step", "1000", "--device", "cpu", "--channels-last", "--logs-dir", f"{folder}/run"]
        common += ["--no-progress", "--no-report", "--no-tensorboard"]
        command, output = [*flags, *common, *further], Path(folder, "output.txt")
        process = _SERVER.Process(target=_train, args=(command, output))
        process.start()
        process.join()
        if process.exitcode != 0:
            raise subprocess.CalledProcessError(process.exitcode or 1, command, output=output.read_bytes())
        last = json.loads(Path(folder, "run/metrics.json").read_text())["last"]
        seconds = sum(last["seconds"].values())
    result = {"mAP": last["mAP"], "rank1": last["rank1"], "clusters": last["clusters"], "epoch_seconds": seconds}
    return {**result, "quality": last["quality"]} if "quality" in last else result


def _train(command: Sequence[str], output: Path) -> None:
    import torch

    from ise_fast.train import main

    torch.set_num_threads(1)
    with output.open("w") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        status = main(command)
    sys.exit(status)


def arguments(program: str, description: str, seeds: int) -> argparse.ArgumentParser:
    """The command line of a program of many trainings; `work_off` takes what is parsed."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=description)
    parser.add_argument("dataset", choices=["synthetic", "omniglot"])
    parser.add_argument("--data-dir")
    parser.add_argument("--seeds", type=int, default=seeds, help="seeds 1 to this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time, one thread each")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no run after this")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("further", nargs="*", help="arguments of ise_fast.train for every run, after --")
    parser.set_defaults(begin=time.monotonic())
    return parser


def further_flags(options: argparse.Namespace) -> list[str]:
    """What every run is told beside its own flags."""
    return [*(["--data-dir", options.data_dir] if options.data_dir else []), *options.further]


def work_off(
    records: Records,
    runs: Iterable[RunT],
    train: Callable[[RunT], dict[str, Any]],
    options: argparse.Namespace,
) -> bool:
    """Train what is not recorded yet, until the time is up; whether all runs are done."""
    end = options.begin + 60 * options.minutes
    with ThreadPoolExecutor(options.jobs) as pool:
        left = records.left(runs)
        results = pool.map(lambda run: train(run) if time.monotonic() < end else None, left)
        for run, result in zip(left, results, strict=True):
            if result is not None:
                records.add(run, result)
                print(f"{run}: {result.get('failed') or 'mAP ' + format(result['mAP'], '.1%')}", flush=True)
    return not records.left(runs)
