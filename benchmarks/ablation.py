"""python -m benchmarks.ablation: what each part of ISE brings, over paired seeds.

    python -m benchmarks.ablation synthetic
    python -m benchmarks.ablation omniglot --data-dir DIR
    python -m benchmarks.ablation synthetic --camera-shift 0 0.5 1 1.5 2     # the baseline and ISE alone

Every run is `python -m ise_fast.train` with the data set's small preset, one thread and an arm's flags. Learning rate
and memory momentum are chosen first, the same for all arms: the best mean mAP of the baseline and ISE over a grid, on
seeds that are not reported. Each run is one line of a file in benchmarks/results/, so a stopped program goes on where
it was; `--minutes` stops it in time. `python -m benchmarks.results` makes the tables.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import torch

from benchmarks import machine

RESULTS = Path(__file__).parent / "results"
BASELINE = "baseline"
ARMS: dict[str, tuple[str, ...]] = {
    BASELINE: ("--method", "cluster-contrast"),
    "+ PLI": ("--lp-weight", "0"),
    "+ label preserving": ("--no-contrast-supports",),
    "ISE": (),
    "ISE, k = 2": ("--supports", "2"),
    "ISE, k = 3": ("--supports", "3"),
    "ISE, balanced sampler": ("--sampler", "balanced"),
    "ISE, every row updates": ("--memory-mode", "momentum"),
}
RATES, MOMENTA = (1e-3, 2e-3, 4e-3), (0.2, 0.5, 0.8)
TUNING_ARMS, TUNING_SEEDS = (BASELINE, "ISE"), (101, 102)


class Run(NamedTuple):
    """One training, named by what decides it."""

    arm: str
    seed: int
    lr: float
    momentum: float
    camera_shift: float | None = None

    @classmethod
    def of(cls, record: dict[str, Any]) -> Run:
        return cls(**{name: record[name] for name in cls._fields})


RunT = TypeVar("RunT", bound="NamedRun")


class NamedRun(Protocol):
    """A training and what decides it: a named tuple."""

    def _asdict(self) -> dict[str, Any]: ...


class Records:
    """Runs that are done, one line each after a line about the machine.

    Args:
        path: of the file; made if it is not there.
        kind: of the runs, with a method `of` that reads one from its record.
    """

    def __init__(self, path: Path, kind: Any = Run) -> None:
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


def train(dataset: str, run: Run, further: Sequence[str]) -> dict[str, Any]:
    """Scores of the last epoch, by a process of its own with one thread.

    Raises:
        subprocess.CalledProcessError: if the run fails.
    """
    flags = ["--dataset", dataset, *ARMS[run.arm], "--seed", str(run.seed), "--lr", str(run.lr)]
    flags += ["--momentum", str(run.momentum)]
    with tempfile.TemporaryDirectory() as folder:
        if run.camera_shift is not None:
            flags += ["--data-dir", str(_shifted(Path(folder), run.camera_shift)), "--preset", "synthetic"]
            flags += ["--dataset", "market1501"]
        return launch(flags, further)


def launch(flags: Sequence[str], further: Sequence[str]) -> dict[str, Any]:
    """Scores of the last epoch of a training in a process of its own with one thread.

    Raises:
        subprocess.CalledProcessError: if the run fails; with what it said.
    """
    with tempfile.TemporaryDirectory() as folder:
        # Channels-last is a tenth faster on a CPU.
        common = ["--eval-step", "1000", "--device", "cpu", "--channels-last", "--logs-dir", f"{folder}/run"]
        common += ["--no-progress", "--no-report", "--no-tensorboard"]
        command = [sys.executable, "-m", "ise_fast.train", *flags, *common, *further]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        last = json.loads(Path(folder, "run/metrics.json").read_text())["last"]
        seconds = sum(last["seconds"].values())
    result = {"mAP": last["mAP"], "rank1": last["rank1"], "clusters": last["clusters"], "epoch_seconds": seconds}
    return {**result, "quality": last["quality"]} if "quality" in last else result


def _shifted(folder: Path, camera_shift: float) -> Path:
    """The synthetic data set with cameras that differ more or less, in the layout of Market-1501."""
    from ise_fast.data import SyntheticSpec, generate_synthetic

    generate_synthetic(folder / "Market-1501-v15.09.15", SyntheticSpec(camera_shift=camera_shift), workers=1)
    return folder


def tuning_runs() -> list[Run]:
    return [Run(*setting) for setting in itertools.product(TUNING_ARMS, TUNING_SEEDS, RATES, MOMENTA)]


def chosen(records: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """(learning rate, momentum) of the best mean mAP over the tuning runs."""
    scores = {
        setting: statistics.mean(r["mAP"] for r in records if (r["lr"], r["momentum"]) == setting)
        for setting in itertools.product(RATES, MOMENTA)
    }
    return max(scores, key=lambda setting: scores[setting])


class Difference(NamedTuple):
    """Mean of paired differences, and half the width of its 95 % interval (Student's t)."""

    mean: float
    half: float


def paired(records: Sequence[dict[str, Any]], arm: str, other: str, score: str = "mAP") -> Difference:
    """arm - other over the seeds that both have."""
    from scipy import stats

    values = [{r["seed"]: r[score] for r in records if r["arm"] == name} for name in (arm, other)]
    differences = [values[0][seed] - values[1][seed] for seed in sorted(values[0].keys() & values[1].keys())]
    if len(differences) < 2:
        return Difference(statistics.mean(differences) if differences else float("nan"), float("nan"))
    error = statistics.stdev(differences) / len(differences) ** 0.5
    return Difference(statistics.mean(differences), float(stats.t.ppf(0.975, len(differences) - 1)) * error)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablation", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("dataset", choices=["synthetic", "omniglot"])
    parser.add_argument("--data-dir")
    parser.add_argument("--seeds", type=int, default=20, help="seeds 1 to this")
    parser.add_argument("--camera-shift", type=float, nargs="+", help="synthetic: this knob, instead of the arms")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time, one thread each")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no run after this")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("further", nargs="*", help="arguments of ise_fast.train for every run, after --")
    options = parser.parse_args(argv)
    further = [*(["--data-dir", options.data_dir] if options.data_dir else []), *options.further]
    end = time.monotonic() + 60 * options.minutes

    def work_off(records: Records, runs: Iterable[Run]) -> bool:
        """Whether all runs are done."""
        with ThreadPoolExecutor(options.jobs) as pool:
            left = records.left(runs)
            results = pool.map(
                lambda run: train(options.dataset, run, further) if time.monotonic() < end else None, left
            )
            for run, result in zip(left, results, strict=True):
                if result is not None:
                    records.add(run, result)
                    print(f"{run}: mAP {result['mAP']:.1%}", flush=True)
        return not records.left(runs)

    tuning = Records(options.out / f"tuning-{options.dataset}.jsonl")
    if not work_off(tuning, tuning_runs()):
        return
    setting = chosen(tuning.runs)
    seeds = range(1, options.seeds + 1)
    name, runs = "ablation", [Run(arm, seed, *setting) for seed in seeds for arm in ARMS]
    if options.camera_shift:
        settings = itertools.product(seeds, options.camera_shift, TUNING_ARMS)
        name, runs = "camera-shift", [Run(arm, seed, *setting, shift) for seed, shift, arm in settings]
    work_off(Records(options.out / f"{name}-{options.dataset}.jsonl"), runs)


if __name__ == "__main__":
    main()
