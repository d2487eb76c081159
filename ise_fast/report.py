"""Remake the report of a run: `python -m ise_fast.report RUN_DIR`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0 done, 2 wrong arguments."""
    parser = argparse.ArgumentParser(prog="python -m ise_fast.report", description="Remake the report of a run.")
    parser.add_argument("folder", type=Path, metavar="RUN_DIR", help="folder of the run, such as logs/synthetic")
    parser.add_argument("-o", "--output", type=Path, help="page to write; default: RUN_DIR/report.html")
    arguments = parser.parse_args(argv)
    from ise_fast.engine.report import write_report

    try:
        print(write_report(arguments.folder, arguments.output))
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
