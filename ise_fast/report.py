"""Remake the report of a run, or lay two side by side: `python -m ise_fast.report RUN [RUN2]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0 done, 2 wrong arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m ise_fast.report",
        description="Make the report of a run anew, or a page that compares two runs.",
        epilog="examples: %(prog)s logs/people    %(prog)s logs/baseline logs/ise -o both.html",
    )
    parser.add_argument("folder", type=Path, metavar="RUN", help="folder of the run, such as logs/synthetic")
    parser.add_argument("other", type=Path, metavar="RUN2", nargs="?", help="folder of the run to compare it with")
    about = "page to write; default: RUN/report.html, or RUN/compare-RUN2.html"
    parser.add_argument("-o", "--output", type=Path, metavar="PAGE", help=about)
    arguments = parser.parse_args(argv)
    try:
        if arguments.other is None:
            from ise_fast.engine.report import write_report

            print(write_report(arguments.folder, arguments.output))
        else:
            from ise_fast.engine.report_compare import write_comparison

            print(write_comparison(arguments.folder, arguments.other, arguments.output))
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
