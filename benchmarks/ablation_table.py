"""The records of `benchmarks.ablation` as tables and figures: means, and paired differences with 95 % intervals."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from benchmarks.ablation import BASELINE, MOMENTA, RATES, TUNING_SEEDS, Difference, Run, paired
from benchmarks.runs import Records

# arm and what it is compared with
PAIRS = [
    ("+ PLI", BASELINE),
    ("+ label preserving", BASELINE),
    ("ISE", BASELINE),
    ("ISE, k = 2", "ISE"),
    ("ISE, k = 3", "ISE"),
    ("ISE, balanced sampler", "ISE"),
    ("ISE, every row updates", "ISE"),
]


def section(path: Path) -> str:
    """The arms of one data set, and the figure beside the records."""
    records, dataset = Records(path, Run), path.stem.removeprefix("ablation-")
    rows = ["| arm | seeds | mAP | rank-1 | compared with | difference in mAP |", "|---|---|---|---|---|---|"]
    rows.append(_row(records.runs, BASELINE, "", ""))
    differences: dict[str, Difference] = {}
    for arm, other in PAIRS:
        difference = paired(records.runs, arm, other)
        differences[f"{arm} - {other}"] = difference
        rows.append(_row(records.runs, arm, other, _interval(difference)))
    _figure(path.with_suffix(".svg"), differences)
    return (
        f"## Ablation on {dataset}\n\n{_made_by(records, dataset + _data(dataset))} Mean ± deviation over seeds, in "
        "per cent, last epoch; differences are paired by seed, with 95 % intervals (Student's t). PLI: progressive "
        "linear interpolation, which makes the supports.\n\n"
        + "\n".join(rows)
        + f"\n\n![paired differences](../benchmarks/results/{path.stem}.svg)\n"
    )


def _made_by(records: Records, flags: str) -> str:
    machine, first = records.machine, records.runs[0]
    return (
        f"{machine['hardware']}, one thread a run, torch {machine['versions']['torch']}, commit {machine['commit']}, "
        f"{machine['date']}: `python -m benchmarks.ablation {flags}`. Learning rate {first['lr']:g} and momentum "
        f"{first['momentum']:g}, chosen of {len(RATES) * len(MOMENTA)} settings by the mean mAP of the baseline and "
        f"ISE on seeds {' and '.join(map(str, TUNING_SEEDS))}, which are not reported."
    )


def _data(dataset: str) -> str:
    return " --data-dir DIR" if dataset == "omniglot" else ""


def _row(runs: list[dict[str, Any]], arm: str, other: str, difference: str) -> str:
    cells = (arm, _seeds(runs, arm), _mean(runs, arm, "mAP"), _mean(runs, arm, "rank1"), other, difference)
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def _seeds(runs: list[dict[str, Any]], arm: str) -> int:
    return sum(run["arm"] == arm for run in runs)


def _mean(runs: list[dict[str, Any]], arm: str, score: str) -> str:
    values = [100 * run[score] for run in runs if run["arm"] == arm]
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}" if len(values) > 1 else "-"


def _interval(difference: Difference) -> str:
    return f"{100 * difference.mean:+.1f} ± {100 * difference.half:.1f}"


def _figure(path: Path, differences: dict[str, Difference]) -> None:
    """Points with 95 % intervals, one line a difference."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.6 + 0.35 * len(differences)), layout="constrained")
    axes = figure.add_subplot()
    names = list(differences)[::-1]
    means = [100 * differences[name].mean for name in names]
    axes.errorbar(means, range(len(names)), xerr=[100 * differences[name].half for name in names], fmt="o", capsize=3)
    axes.axvline(0, color="grey", linewidth=0.8)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("difference in mAP, points")
    with mpl.rc_context({"svg.hashsalt": "ise_fast"}):  # the same records give the same file
        figure.savefig(path, metadata={"Date": None})
