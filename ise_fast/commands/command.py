"""What the small commands share: a parser that speaks in one line, and the exit status of what goes wrong."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ise_fast.engine.console import printing, say, silence
from ise_fast.engine.errors import UsageError


class Parser(argparse.ArgumentParser):
    """argparse, but errors are `UsageError`s, and an unknown flag is answered with the one that was meant."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        raise UsageError(" ".join(message.split()))

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        values, unknown = self.parse_known_args(args, namespace)
        if unknown:
            flags = [flag for action in self._actions for flag in action.option_strings]
            word = unknown[0].split("=")[0]
            near = difflib.get_close_matches(word, flags, n=1) if word.startswith("-") else []
            hint = f"; did you mean {near[0]}?" if near else "; --help lists the arguments"
            self.error(f"there is no argument {word!r}{hint}")
        return values


def user_path(text: str) -> Path:
    """A path of the command line; ~ is the home folder also where the shell does not say so."""
    if not text.strip():  # an unset variable of a shell
        raise argparse.ArgumentTypeError("expected a path, got an empty one")
    return Path(os.path.expanduser(text))


def finish(prog: str, body: Callable[[], None]) -> int:
    """Run a command: 0 done, 2 with one line for what the user can mend, 130 for Ctrl-C."""
    try:
        try:
            body()
        finally:
            with printing():  # what is still held back, also where --help ends the program
                pass
    except BrokenPipeError:  # the reader of our output has seen enough
        silence(sys.stdout)
    except (ValueError, TypeError, ImportError, MemoryError, OSError) as error:  # UsageError and DatasetError too
        say(f"{prog}: error: {' '.join(str(error).split()) or type(error).__name__}")
        return 2
    except KeyboardInterrupt:
        say(f"{prog}: interrupted, nothing was written")
        return 130
    return 0


def check_suffix(flag: str, path: Path, known: Sequence[str]) -> None:
    """Raises:
    UsageError: if a file of this name cannot be read or written, before any work is done.
    """
    if path.suffix.lower() not in known:
        raise UsageError(f"{flag}: expected a name that ends in {', '.join(known)}, got {path}")


def check_count(flag: str, value: int, low: int = 1) -> None:
    """Raises:
    UsageError: if a number is too small.
    """
    if value < low:
        raise UsageError(f"{flag}: expected a number of at least {low}, got {value}")


def check_target(flag: str, path: Path | None) -> None:
    """Raises:
    UsageError: if no file can be written at this path, before any work is done. None: none is wanted.
    """
    if path is None:
        return
    try:
        if path.is_dir():
            raise UsageError(f"{flag}: expected a file, got the folder {path}")
        if not path.parent.is_dir():
            raise UsageError(f"{flag}: {path} cannot be written: there is no folder {path.parent}")
        if not path.exists() or path.is_file():  # no device or pipe
            with tempfile.TemporaryFile(dir=path.parent):
                pass
    except OSError as error:
        raise UsageError(f"{flag}: {path} cannot be written: {error.strerror}") from error
