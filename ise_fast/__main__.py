"""`ise-fast COMMAND ...`, or `python -m ise_fast COMMAND ...`."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence

import ise_fast
from ise_fast.engine.console import printing, say
from ise_fast.engine.errors import UsageError

# command: module with main(argv) -> exit status, what it does
COMMANDS = {
    "train": ("ise_fast.train", "train an embedding on images without identities"),
    "evaluate": ("ise_fast.evaluate", "mAP and CMC of a checkpoint on a test split"),
    "embed": ("ise_fast.commands.embed", "features of any images, as npz, npy, csv or parquet"),
    "cluster": ("ise_fast.commands.cluster", "labels for a file of features"),
    "search": ("ise_fast.commands.search", "the images of a gallery that are nearest to a new one"),
    "export": ("ise_fast.commands.export", "the network of a checkpoint as ONNX or torch.export"),
    "report": ("ise_fast.report", "make the page of a run anew, or compare two runs"),
}

MODULES = ("train", "evaluate", "report")  # these go by python -m too, and are told which name they go by


def usage() -> str:
    lines = [f"  {name:9s} {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: ise-fast COMMAND [arguments]        (ise-fast COMMAND --help for the arguments of one)",
            "",
            *lines,
            "",
            "  --version prints the version",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit status: 0 done, 1 the run failed, 2 wrong arguments, 128 + n signal n."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        return _tell(usage()) or (0 if words else 2)
    if words[0] in ("-V", "--version"):
        return _tell(f"ise_fast {ise_fast.__version__}")
    if words[0] not in COMMANDS:
        near = difflib.get_close_matches(words[0], COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(COMMANDS)}"
        say(f"ise-fast: error: there is no command {words[0]!r}; {hint}")
        return 2
    try:
        module = importlib.import_module(COMMANDS[words[0]][0])
    except KeyboardInterrupt:  # torch takes seconds to import
        say(f"ise-fast {words[0]}: interrupted")
        return 130
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())  # as python -m does: a method or backbone of the user may lie here
    name = {"prog": f"ise-fast {words[0]}"} if words[0] in MODULES else {}
    status: int = module.main(words[1:], **name)
    return status


def _tell(text: str) -> int:
    """Print the text; 2 where that cannot be done."""
    try:
        with printing():
            print(text)
    except UsageError as error:
        say(f"ise-fast: error: {error}")
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
