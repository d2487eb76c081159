"""Standard output and error as places that can vanish: a reader that ends, a full disk, a terminal that was closed."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

from ise_fast.engine.errors import UsageError

GONE = (OSError, ValueError)  # what writing raises: ValueError where the stream was closed
log = logging.getLogger(__name__)


def console_level(*, quiet: bool, is_main: bool) -> int:
    """What the console of a process shows: every rank but the first is silent, and --quiet leaves out the news."""
    return logging.CRITICAL if not is_main else logging.WARNING if quiet else logging.INFO


class ConsoleHandler(logging.Handler):
    """Log lines on standard error that do not tear progress bars apart. A console that is gone ends no run."""

    gone: str | None = None  # why nothing can be written any more

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        line = self.format(record)
        if self.gone is not None:
            return
        try:
            if sys.stderr is None:  # it was closed before Python started
                raise ValueError("standard error is closed")
            tqdm.write(line, file=sys.stderr)
        except GONE as error:
            self.gone = reason(error)
            silence(sys.stderr)
            self.say_gone()

    def say_gone(self) -> None:
        """Tell the other handlers, such as train.log."""
        if self.gone is not None:
            log.warning("the console cannot be written (%s): from here on, this file alone has every line", self.gone)


def start_console(level: int = logging.INFO) -> None:
    """Send the package's log to the console, from `level` on."""
    root = logging.getLogger("ise_fast")
    root.setLevel(logging.INFO)
    root.propagate = False
    for old in consoles():
        root.removeHandler(old)
    handler = ConsoleHandler(level)
    handler.setFormatter(logging.Formatter("%(message)s"))
    root.addHandler(handler)


def consoles() -> list[ConsoleHandler]:
    """Where the package's log goes to the console: one handler or none."""
    return [h for h in logging.getLogger("ise_fast").handlers if isinstance(h, ConsoleHandler)]


def say(text: str) -> None:
    """A line on standard error, where that can be written."""
    if sys.stderr is None:
        return
    try:
        print(text, file=sys.stderr, flush=True)
    except GONE:
        silence(sys.stderr)


def show(text: str) -> None:
    """A line on standard output; what is no text in the name of a file is written as an escape."""
    print(text.encode(errors="backslashreplace").decode())


@contextlib.contextmanager
def printing() -> Iterator[None]:
    """The block writes to standard output, and has written when it ends.

    Raises:
        SystemExit: with status 0, if the reader has seen enough.
        UsageError: if it cannot be written for another reason.
    """
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        silence(sys.stdout)
        raise SystemExit(0) from None
    except OSError as error:
        silence(sys.stdout)
        raise UsageError(f"standard output cannot be written: {reason(error)}") from error


def silence(stream: Any) -> None:
    """Let whatever else is written to a stream vanish, what it still holds at the end of the program included."""
    with contextlib.suppress(*GONE, AttributeError), open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), stream.fileno())


def reason(error: BaseException) -> str:
    """Why, in the system's words."""
    return (isinstance(error, OSError) and error.strerror) or str(error)
