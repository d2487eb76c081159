"""The worker: runs cases and prints a line of JSON for each operator. The case at hand is on file, should it die."""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
from pathlib import Path

import torch

from fuzzing import arguments, oracle, wrapped
from fuzzing.runner import CASE_SECONDS, KEPT, KINDS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m fuzzing", description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("operators", nargs="*", help="all when none is named")
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--seed", type=int, help="this case alone, with its traceback")
    parser.add_argument("--begin", type=int, default=0, help="first case of the first operator")
    parser.add_argument("--case-file", type=Path, default=Path(os.devnull), help="where the case at hand is written")
    options = parser.parse_args()
    faulthandler.enable()
    # Memory that nobody has written is NaN or the largest integer: it cannot pass for an answer.
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(2)
    names = options.operators or sorted(arguments.operators() if options.kind == "raw" else wrapped.FUNCTIONS)
    if options.seed is not None:
        print(*(f"{name}: {oracle.run_case(options.kind, name, options.seed)}" for name in names), sep="\n")
        return
    begin = options.begin
    with options.case_file.open("w") as file:
        for name in names:
            run_operator(options.kind, name, range(begin, options.cases), file.fileno())
            begin = 0


def run_operator(kind: str, name: str, seeds: range, file: int) -> None:
    counts = {"answered": 0, "refused": 0}
    wrong: list[dict[str, object]] = []
    for seed in seeds:
        os.pwrite(file, f"{name} {seed} {counts['answered']} {counts['refused']}\n".ljust(80).encode(), 0)
        if seed % 50 == 0:  # a case that hangs ends the process, with its traceback
            faulthandler.dump_traceback_later(CASE_SECONDS, exit=True)
        try:
            counts[oracle.run_case(kind, name, seed)] += 1
        except AssertionError as error:
            wrong.append({"seed": seed, "what": str(error)[:300]})
    faulthandler.cancel_dump_traceback_later()
    line = {"operator": name, **counts, "wrong": len(wrong), "examples": wrong[:KEPT]}
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
