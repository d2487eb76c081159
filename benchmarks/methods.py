"""python -m benchmarks.methods: every method on one data set, with the same network, batches, iterations and seeds.

    python -m benchmarks.methods synthetic --seeds 3
    python -m benchmarks.methods omniglot --data-dir DIR --seeds 3

Every run is `python -m ise_fast.train` with the data set's small preset, one thread and an arm's flags. Each arm gets
its own learning rate, the best of three on one seed that is not reported; nothing else is tuned. An arm whose method is
not there is left out, and a run that fails is recorded as such. Each run is one line of a file in benchmarks/results/,
so a stopped program goes on where it was; `--minutes` stops it in time. `python -m benchmarks.results` makes the table.
"""

from __future__ import annotations

import importlib.util
import itertools
import subprocess
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from benchmarks.runs import Records, arguments, further_flags, launch, work_off
from ise_fast.methods import LABELS, METHODS

_CONTRAST = ("--method", "cluster-contrast")
# Published schedules are shortened to the 12 epochs of the presets; temperatures and the like are each method's own.
ARMS: dict[str, tuple[str, ...]] = {
    "Cluster Contrast": _CONTRAST,
    "ISE": ("--method", "ise"),
    "Cluster Contrast, Kalman memory": (*_CONTRAST, "--memory-mode", "kalman"),
    "Cluster Contrast, k-means": (*_CONTRAST, "--labels", "kmeans"),
    "Cluster Contrast, Infomap": (*_CONTRAST, "--labels", "infomap"),
    "Cluster Contrast, mixup": (*_CONTRAST, "--mix", "mixup", "--mix-alpha", "0.3"),
    "Cluster Contrast, CutMix": (*_CONTRAST, "--mix", "cutmix"),
    "Cluster Contrast, mixed features": (*_CONTRAST, "--mix", "feature"),
    "Cluster Contrast, smoothed labels": (*_CONTRAST, "--label-smoothing", "0.1"),
    "SpCL": ("--method", "spcl"),
    "ISE on SpCL's memory": ("--method", "ise-spcl"),
    "CAP": ("--method", "cap", "--cross-epoch", "1", "--sampler", "balanced"),
    "ISE on CAP's proxies": ("--method", "ise-cap", "--cross-epoch", "1", "--sampler", "balanced"),
    "MMCL": ("--method", "mmcl", "--momentum", "0.5", "--momentum-epochs", "12", "--single-epochs", "2"),
    "BUC": (
        "--method", "buc", "--momentum", "0.5", "--first-epochs", "4", "--step-epochs", "1", "--merge-share", "0.1",
    ),
    "PPLR, two losses": ("--method", "pplr", "--parts", "3", "--refine-epoch", "1", "--agreement-neighbours", "20"),
    "CycAs": ("--method", "cycas", "--frame-window", "5"),
    "SoftSim": ("--method", "softsim", "--momentum", "0.5", "--hard-epochs", "4"),
}  # fmt: skip
RATES, TUNING_SEED = (1e-3, 2e-3, 4e-3), 101


class MethodRun(NamedTuple):
    """One training, named by what decides it."""

    arm: str
    seed: int
    lr: float

    @classmethod
    def of(cls, record: dict[str, Any]) -> MethodRun:
        return cls(**{name: record[name] for name in cls._fields})


def available(arms: Iterable[str]) -> list[str]:
    """The arms whose method and labels are there, with the packages that they need."""

    def is_there(flags: Sequence[str]) -> bool:
        given = dict(zip(flags[::2], flags[1::2], strict=True))
        labels = given.get("--labels")
        if given["--method"] not in METHODS or (labels is not None and labels not in LABELS):
            return False
        return labels != "infomap" or importlib.util.find_spec("infomap") is not None

    return [arm for arm in arms if is_there(ARMS[arm])]


def train(dataset: str, run: MethodRun, further: Sequence[str]) -> dict[str, Any]:
    """Scores of the last epoch, or what the run said when it failed."""
    flags = ["--dataset", dataset, *ARMS[run.arm], "--seed", str(run.seed), "--lr", str(run.lr)]
    try:
        return launch(flags, further)
    except subprocess.CalledProcessError as error:
        lines = (error.stdout or b"").decode(errors="replace").splitlines()
        return {"failed": lines[-1] if lines else f"exit status {error.returncode}"}


def chosen(records: Sequence[dict[str, Any]], arm: str) -> float | None:
    """The learning rate of the best mAP of an arm's tuning runs; None where all of them failed."""
    scores = {r["lr"]: r["mAP"] for r in records if r["arm"] == arm and "mAP" in r}
    return max(scores, key=lambda rate: scores[rate]) if scores else None


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments("benchmarks.methods", (__doc__ or "").split("\n")[0], seeds=3)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS), metavar="ARM", help="of the table")
    options = parser.parse_args(argv)
    further, arms = further_flags(options), available(options.arms)
    for arm in options.arms:
        if arm not in arms:
            print(f"{arm}: left out, it is not there", flush=True)

    def done(name: str, runs: list[MethodRun]) -> Records | None:
        """The records, if none of these runs is left."""
        records = Records(options.out / f"{name}-{options.dataset}.jsonl", MethodRun)
        return records if work_off(records, runs, lambda run: train(options.dataset, run, further), options) else None

    tuning = done("methods-tuning", [MethodRun(arm, TUNING_SEED, rate) for arm, rate in itertools.product(arms, RATES)])
    if tuning is None:
        return
    rates = {arm: chosen(tuning.runs, arm) for arm in arms}
    seeds = range(1, options.seeds + 1)
    done(
        "methods",
        [MethodRun(arm, seed, rate) for seed in seeds for arm, rate in rates.items() if rate is not None],
    )


if __name__ == "__main__":
    main()
