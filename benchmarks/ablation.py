"""python -m benchmarks.ablation: what each part of ISE brings, over paired seeds.

    python -m benchmarks.ablation synthetic
    python -m benchmarks.ablation omniglot --data-dir DIR

Every run is `python -m ise_fast.train` with the data set's small preset, one thread and an arm's flags. Learning rate
and memory momentum are chosen first, the same for all arms: the best mean mAP of the baseline and ISE over a grid, on
seeds that are not reported. Each run is one line of a file in benchmarks/results/, so a stopped program goes on where
it was; `--minutes` stops it in time. `python -m benchmarks.results` makes the tables.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks.runs import Records, arguments, further_flags, launch, work_off

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

    @classmethod
    def of(cls, record: dict[str, Any]) -> Run:
        return cls(**{name: record[name] for name in cls._fields})


def train(dataset: str, run: Run, further: Sequence[str]) -> dict[str, Any]:
    """Scores of the last epoch, by a process of its own with one thread.

    Raises:
        subprocess.CalledProcessError: if the run fails.
    """
    flags = ["--dataset", dataset, *ARMS[run.arm], "--seed", str(run.seed), "--lr", str(run.lr)]
    flags += ["--momentum", str(run.momentum)]
    return launch(flags, further)


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
    options = arguments("benchmarks.ablation", (__doc__ or "").split("\n")[0], seeds=20).parse_args(argv)
    further = further_flags(options)

    def done(name: str, runs: list[Run]) -> Records | None:
        """The records, if none of these runs is left."""
        records = Records(options.out / f"{name}-{options.dataset}.jsonl", Run)
        return records if work_off(records, runs, lambda run: train(options.dataset, run, further), options) else None

    tuning = done("tuning", tuning_runs())
    if tuning is None:
        return
    setting, seeds = chosen(tuning.runs), range(1, options.seeds + 1)
    done("ablation", [Run(arm, seed, *setting) for seed in seeds for arm in ARMS])


if __name__ == "__main__":
    main()
