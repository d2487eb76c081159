"""The records of `benchmarks.methods` as a table: means and deviations over seeds, and what was tuned."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from benchmarks.methods import ARMS, RATES, TUNING_SEED, MethodRun
from benchmarks.runs import Records

QUALITY = ("ARI", "precision", "recall")


def section(path: Path) -> str:
    """The arms of one data set, best mAP first."""
    records, dataset = Records(path, MethodRun), path.stem.removeprefix("methods-")
    data = " --data-dir DIR" if dataset == "omniglot" else ""
    machine, seeds = records.machine, max(run["seed"] for run in records.runs)
    arms = sorted({run["arm"] for run in records.runs}, key=lambda arm: -_mean_score(records.runs, arm))
    head = (
        f"## Methods on {dataset}\n\n{machine['hardware']}, one thread a run, torch {machine['versions']['torch']}, "
        f"commit {machine['commit']}, {machine['date']}: `python -m benchmarks.methods {dataset}{data} "
        f"--seeds {seeds}`. Same small network without pretrained weights, batches, iterations and epochs for all. "
        "Mean ± deviation over seeds, in per cent, last epoch; labels against the identities as of the last epoch. Of "
        f"each arm the learning rate was chosen, of {', '.join(f'{rate:g}' for rate in RATES)}, by the mAP of seed "
        f"{TUNING_SEED}, which is not reported. Nothing else was tuned: radius and neighbours are those of the preset, "
        "which was made for ISE and Cluster Contrast; schedules are the published ones shortened to the preset's "
        "epochs. With other images, networks and schedules methods may well come out in another order.\n\n"
    )
    rows = ["| method | seeds | mAP | rank-1 | clusters | label ARI | pair precision | pair recall | lr | seconds |"]
    rows += ["|---" * 10 + "|", *(_row(records.runs, arm) for arm in arms)]
    missing = [arm for arm in ARMS if arm not in arms]
    tail = f"\n\nNot run: {', '.join(missing)}." if missing else ""
    return head + "\n".join(rows) + tail + "\n"


def _mean_score(runs: list[dict[str, Any]], arm: str) -> float:
    scores = [run["mAP"] for run in runs if run["arm"] == arm and "mAP" in run]
    return statistics.mean(scores) if scores else -1.0


def _row(runs: list[dict[str, Any]], arm: str) -> str:
    own = [run for run in runs if run["arm"] == arm]
    done = [run for run in own if "mAP" in run]
    failed = f" ({len(own) - len(done)} failed)" if len(done) < len(own) else ""
    cells = [
        arm,
        f"{len(done)}{failed}",
        _spread([100 * run["mAP"] for run in done]),
        _spread([100 * run["rank1"] for run in done]),
        _spread([run["clusters"] for run in done], 0),
        *(_spread([100 * run["quality"][name] for run in done if run.get("quality")]) for name in QUALITY),
        f"{own[0]['lr']:g}",
        _spread([run["epoch_seconds"] for run in done], 0),
    ]
    return f"| {' | '.join(cells)} |"


def _spread(values: list[float], digits: int = 1) -> str:
    if not values:
        return "-"
    text = f"{statistics.mean(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ± {statistics.stdev(values):.{digits}f}"
