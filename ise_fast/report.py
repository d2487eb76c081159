"""Remake the report of a run, or lay two side by side: `python -m ise_fast.report RUN [RUN2]`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from ise_fast.commands.command import Parser, check_target, finish, user_path

PROG = "python -m ise_fast.report"


def parser(prog: str = PROG) -> Parser:
    """The flags of the command."""
    result = Parser(
        prog=prog,
        description="Make the report of a run anew, or a page that compares two runs.",
        epilog="examples: %(prog)s logs/people    %(prog)s logs/baseline logs/ise -o both.html",
    )
    result.add_argument("folder", type=user_path, metavar="RUN", help="folder of the run, such as logs/synthetic")
    result.add_argument("other", type=user_path, metavar="RUN2", nargs="?", help="folder of the run to compare it with")
    about = "page to write; default: RUN/report.html, or RUN/compare-RUN2.html"
    result.add_argument("-o", "--output", type=user_path, metavar="PAGE", help=about)
    return result


def main(argv: Sequence[str] | None = None, prog: str = PROG) -> int:
    """Run the command line; returns the exit status: 0 done, 2 wrong arguments."""
    return finish(prog, lambda: _run(parser(prog).parse_args(argv)))


def _run(options: Any) -> None:
    check_target("--output", options.output)
    from ise_fast.engine.report import write_report
    from ise_fast.engine.report_compare import write_comparison

    if options.other is None:
        print(write_report(options.folder, options.output))
    else:
        print(write_comparison(options.folder, options.other, options.output))


if __name__ == "__main__":
    sys.exit(main())
