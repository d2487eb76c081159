"""python -m benchmarks.profile: what do the CUDA operators cost, counted without a GPU?

python -m benchmarks.profile knn                      its table, and predicted times at the published sizes
python -m benchmarks.profile ise_head --rows 64       counted at this size and above (what a dimension is: workloads/)
python -m benchmarks.profile --markdown               the table of docs/performance.md
python -m benchmarks.profile --clock FILE             what benchmarks.profile.clock recorded beside the predictions,
                                                      operator by operator and kernel by kernel
python -m benchmarks.profile --lower-budgets          writes the counts of today where they are below their budgets
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

from benchmarks.profile import budgets, recorded, report
from benchmarks.profile.interpreter import NoInterpreter
from benchmarks.profile.model import GPUS
from benchmarks.profile.predict import measure, measure_all
from benchmarks.profile.workloads import WORKLOADS

log = logging.getLogger("benchmarks.profile")


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout, force=True)
    try:
        if options.lower_budgets:
            found = budgets.count_all()
            budgets.save(budgets.lowered(budgets.load(), found))
            for failure in budgets.exceeded(budgets.load(), found):
                log.info("%s", failure)
            return 0
        chosen = options.operators or list(WORKLOADS)
        if options.markdown:
            log.info("%s", report.markdown(measure_all({name: WORKLOADS[name].small for name in chosen})))
            return 0
        if options.clock:
            record = json.loads(options.clock.read_text())
            measured = measure_all({name: WORKLOADS[name].small for name in recorded.timed(record, chosen)})
            of, gpu = {each.operator: each for each in measured}, GPUS[options.gpu]
            log.info("%s", report.clock_table(record, of, gpu))
            needs = recorded.needs_of(record, of, gpu)
            log.info("\n%s", recorded.table(recorded.compare(record, needs, gpu)))
            if options.counts:
                recorded.save(needs, options.counts)
            return 0
        for name in chosen:
            small = {
                dimension: getattr(options, option) or size
                for (dimension, size), option in zip(WORKLOADS[name].small.items(), _options(name), strict=True)
            }
            log.info("%s\n", report.profile(measure(name, small), GPUS[options.gpu], options.lines))
    except NoInterpreter as error:
        log.error("%s", error)
        return 1
    return 0


def _options(operator: str) -> list[str]:
    """Which option sets each dimension: the first are rows, d is the width, others are columns."""
    names = list(WORKLOADS[operator].small)
    return ["width" if name == "d" else "rows" if name == names[0] else "columns" for name in names]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("operators", nargs="*", choices=[[], *WORKLOADS], metavar="OPERATOR", help=", ".join(WORKLOADS))
    parser.add_argument("--rows", type=int, help="N, B or Q of the smallest run; the others double it")
    parser.add_argument("--columns", type=int, help="K, G or the rows that knn searches")
    parser.add_argument("--width", type=int, help="d")
    parser.add_argument("--gpu", choices=GPUS, default="H100", help="of the predicted times")
    parser.add_argument("--lines", type=int, default=5, help="source lines shown of a kernel")
    parser.add_argument("--markdown", action="store_true", help="predicted times of all operators as a table")
    parser.add_argument(
        "--clock", type=Path, metavar="FILE", help="a record of benchmarks.profile.clock to compare with"
    )
    parser.add_argument("--counts", type=Path, metavar="FILE", help="with --clock: writes what the kernels need")
    parser.add_argument("--lower-budgets", action="store_true", help="write smaller counts to tests/ptx/budgets.json")
    return parser


if __name__ == "__main__":
    sys.exit(main())
