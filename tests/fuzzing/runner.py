"""Runs the worker and goes on after the case that killed it; counts what came of the cases."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

KINDS = ("raw", "wrapped")
CASE_SECONDS = 120  # for 50 cases, of a millisecond each on an idle machine
KEPT = 3  # failing cases of an operator that are told


@dataclass
class Counts:
    """What came of one operator's cases."""

    answered: int = 0
    refused: int = 0
    wrong: int = 0
    crashes: int = 0
    failures: list[str] = field(default_factory=list)  # how to repeat them, and what was wrong

    @property
    def cases(self) -> int:
        return self.answered + self.refused + self.wrong + self.crashes


def run(kind: str, operators: Iterable[str], cases: int, folder: Path) -> dict[str, Counts]:
    """`cases` of every operator, in one process as long as it lives."""
    left, begin, case_file = list(operators), 0, folder / f"{kind}.case"
    counts = {name: Counts() for name in left}
    while left:
        command = [sys.executable, "-m", "fuzzing", kind, *left, "--cases", str(cases), "--begin", str(begin)]
        case_file.write_text("")
        # The same modules as here: under the sanitizers another ise_fast comes first.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        worker = subprocess.run(
            [*command, "--case-file", str(case_file)], env=environment, capture_output=True, text=True
        )
        for line in worker.stdout.splitlines():
            told = json.loads(line)
            name = told["operator"]
            counts[name].answered += told["answered"]
            counts[name].refused += told["refused"]
            counts[name].wrong += told["wrong"]
            counts[name].failures += [_repeat(kind, name, e["seed"], e["what"]) for e in told["examples"]]
            left.remove(name)
            begin = 0
        if worker.returncode == 0:
            assert not left, worker.stderr
            break
        # The case file tells which case it was, and the counts of this operator since it began.
        words = case_file.read_text().split()
        assert words[:1] == left[:1], worker.stderr
        name, seed, answered, refused = words[0], *map(int, words[1:])
        counts[name].crashes += 1
        counts[name].answered += answered
        counts[name].refused += refused
        counts[name].wrong += seed - begin - answered - refused
        counts[name].failures.append(
            _repeat(kind, name, seed, f"died with {worker.returncode}:\n{worker.stderr[-4000:]}")
        )
        begin = seed + 1
        if begin == cases:
            left, begin = left[1:], 0
    return counts


def _repeat(kind: str, name: str, seed: int, what: str) -> str:
    return f"python -m fuzzing {kind} {name} --seed {seed}   (in tests/): {what}"
