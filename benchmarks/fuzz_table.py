"""The section of docs/results.md on the fuzzer of the operators, from `python -m fuzzing.record` (in tests/)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

KINDS = {
    "raw plain": "torch.ops.ise_fast",
    "wrapped plain": "ise_fast.ops",
    "raw sanitized": "torch.ops.ise_fast, sanitizers",
    "wrapped sanitized": "ise_fast.ops, sanitizers",
}


def section(path: Path) -> str:
    """Totals of each kind of run, then the cases of each operator."""
    record = json.loads(path.read_text())
    machine, runs = record["machine"], record["fuzzer"]
    kinds = [kind for kind in KINDS if kind in runs]
    commits = sorted({count["commit"] for kind in kinds for count in runs[kind].values()})
    rows = [
        "## Fuzzer\n",
        "Operators on almost valid arguments: other shapes, dtypes and strides, NaN and huge numbers, freed memory, "
        "tensors of other kinds. A case is wrong if the answer is not the reference's, holds NaN or infinity, depends "
        "on strides, or if the error is of another type, longer than a line, or names no argument; a crash is a "
        f"signal, a report of the sanitizers (address, undefined behaviour) or no end. {machine['hardware']}, torch "
        f"{machine['versions']['torch']}, commit {', '.join(commits)}, {machine['date']}.\n",
        "| operators | cases | answered | refused | wrong | crashes |",
        "|---|---|---|---|---|---|",
    ]
    fields = ("cases", "answered", "refused", "wrong", "crashes")
    for kind in kinds:
        totals = [sum(count[field] for count in runs[kind].values()) for field in fields]
        rows.append(f"| {KINDS[kind]} | " + " | ".join(f"{total:,}" for total in totals) + " |")
    rows += ["\nCases (of these answered) by operator:\n", "| operator | " + " | ".join(KINDS[k] for k in kinds) + " |"]
    rows.append("|---" * (1 + len(kinds)) + "|")
    for name in sorted({name for kind in kinds for name in runs[kind]}):
        rows.append(f"| {name} | " + " | ".join(_cell(runs[kind].get(name)) for kind in kinds) + " |")
    return "\n".join(rows) + "\n"


def _cell(count: dict[str, Any] | None) -> str:
    if count is None:
        return ""
    text = f"{count['cases']:,} ({count['answered']:,})"
    bad = [f"{count[field]} {field}" for field in ("wrong", "crashes") if count[field]]
    return ", ".join([text, *bad])
