"""python -m benchmarks: how fast is each operator here, how far from what the hardware allows, and against what else?

python -m benchmarks                        all cases at the size of Market-1501
python -m benchmarks --quick                tiny sizes, under a minute: does everything work?
python -m benchmarks --growth --out DIR     also curves over N, K, B, d and k
python -m benchmarks --compare A.json B.json
python -m benchmarks --render A.json        tables and figures of a record again
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from pathlib import Path

import torch

from benchmarks import machine, record, table
from benchmarks.cases import CASES, Setting
from benchmarks.measure import WrongResult, measure

log = logging.getLogger("benchmarks")


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout, force=True)
    if options.compare:
        log.info(record.compare(*(record.load(path) for path in options.compare)))
        return 0
    if options.render:
        _render(record.load(options.render), options.render.parent)
        return 0
    return _run(options)


def _run(options: argparse.Namespace) -> int:
    device = torch.device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    setting = Setting(device, options.quick, tuple(options.sizes), options.growth)
    rounds = 2 if options.quick else options.rounds
    clock = time.process_time if options.processor_time else time.perf_counter
    ceilings = machine.ceilings(device)
    result = {"machine": machine.describe(device), "ceilings": ceilings, "quick": options.quick, "lines": []}
    for name in options.only or CASES:
        for case in CASES[name](setting):
            try:
                timings = measure(case, rounds=rounds, budget=options.budget, clock=clock)
            except WrongResult as error:
                log.error("%s (%s): wrong result: %s", case.operator, record.shape(case.shape), error)
                return 1
            result["lines"].append(record.line(case, timings, ceilings))
            ours = timings[0]
            others = "".join(f", {t.name} x{t.median / ours.median:.2f}" for t in timings[1:])
            log.info("%s (%s): %s%s", case.operator, record.shape(case.shape), record.spread(ours.seconds), others)
    if options.out:
        record.save(options.out / "results.json", result)
        _render(result, options.out)
    return 0


def _render(result: dict, folder: Path) -> None:  # type: ignore[type-arg]
    (folder / "results.md").write_text(table.markdown(result))
    figures = table.figures(result, folder)
    log.info("wrote %s", ", ".join(str(path) for path in (folder / "results.md", *figures)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes; the times mean nothing")
    parser.add_argument("--growth", action="store_true", help="curves over N, K, B, d and k as well")
    parser.add_argument("--only", nargs="+", choices=CASES, metavar="CASE", help=f"some of: {', '.join(CASES)}")
    parser.add_argument("--sizes", nargs="+", type=int, default=[], metavar="N", help="images, e.g. 12936 32621 126441")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="CPU threads of torch")
    parser.add_argument(
        "--processor-time", action="store_true", help="seconds of all threads on the CPU, for a machine that is shared"
    )
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of each variant")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds a case may take, shared by its variants")
    parser.add_argument("--out", type=Path, help="folder for results.json, results.md and figures")
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("A", "B"), help="two records")
    parser.add_argument("--render", type=Path, metavar="RECORD", help="write tables and figures of a record")
    return parser


if __name__ == "__main__":
    sys.exit(main())
