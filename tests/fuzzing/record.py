"""python -m fuzzing.record, in tests/: many cases of every operator; counts into benchmarks/results/fuzz.json.

`python -m benchmarks.results` prints them. Under the sanitizers (tests/sanitize.sh's environment) they are kept apart.
With `--operators` those alone are run again: a long run may be made in pieces.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import torch

from benchmarks import machine
from fuzzing import arguments, wrapped
from fuzzing.runner import KINDS, run

TARGET = Path(__file__).parents[2] / "benchmarks" / "results" / "fuzz.json"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzzing.record", description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--operators", nargs="+")
    parser.add_argument("--out", type=Path, default=TARGET)
    options = parser.parse_args()
    build = "sanitized" if "ISE_FAST_TESTED" in os.environ else "plain"
    names = options.operators or sorted(arguments.EXAMPLES if options.kind == "raw" else wrapped.FUNCTIONS)
    begin = time.time()
    with tempfile.TemporaryDirectory() as folder:
        counts = run(options.kind, names, options.cases, Path(folder))
    record = json.loads(options.out.read_text()) if options.out.exists() else {"fuzzer": {}}
    record["machine"] = machine.describe(torch.device("cpu"))
    entry = record["fuzzer"].setdefault(f"{options.kind} {build}", {})
    for name, count in counts.items():
        entry[name] = {
            "cases": count.cases, "answered": count.answered, "refused": count.refused, "wrong": count.wrong,
            "crashes": count.crashes, "commit": record["machine"]["commit"],
        }  # fmt: skip
        print(name, entry[name], *count.failures, sep="\n  ")
    options.out.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    print(f"{time.time() - begin:.0f} s")
    return int(any(count.failures for count in counts.values()))


if __name__ == "__main__":
    raise SystemExit(main())
