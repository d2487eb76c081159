"""How far a long stage is: a bar for those who watch, a line in the log every tenth for those who do not."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LONG = 60.0  # seconds: a stage that will be done before says nothing in the log
log = logging.getLogger(__name__)


class Stage:
    """Counts what is done of a stage. Made by `stage`.

    Args:
        total: units of work.
        description: what is done, such as "epoch 3/70".
        unit: its name, such as "img".
        done: units done before, by a run that was stopped.
        bar: a tqdm bar, or None.
    """

    def __init__(self, total: int, description: str, unit: str, done: int = 0, bar: Any = None) -> None:
        self.total, self.description, self.unit = total, description, unit
        self.done = self._first = done
        self._bar = bar
        self._note = ""
        self._tenth = 10 * done // max(1, total)
        self._start = time.monotonic()

    def update(self, count: int = 1) -> None:
        """`count` more units are done."""
        self.done += count
        if self._bar is not None:
            self._bar.update(count)
        tenth = 10 * self.done // max(1, self.total)
        if tenth > self._tenth:
            self._tenth = tenth
            if self._bar is None or self._bar.disable:
                self._say()

    def note(self, text: str) -> None:
        """Words beside the count, such as the loss."""
        self._note = text
        if self._bar is not None:
            self._bar.set_postfix_str(text)

    def _say(self) -> None:
        spent = time.monotonic() - self._start
        left = spent / (self.done - self._first) * (self.total - self.done)
        if self.done < self.total and spent + left >= LONG:
            log.info(
                "%s: %d of %d %s (%d%%)%s, %s so far, about %s left", self.description, self.done, self.total,
                self.unit, 100 * self.done // self.total, f", {self._note}" * bool(self._note), clock(spent),
                clock(left),
            )  # fmt: skip


@contextmanager
def stage(total: int, description: str, unit: str, *, bar: bool, done: int = 0) -> Iterator[Stage]:
    """Watch a stage of work: `with stage(len(images), "extract", "img", bar=True) as watched: watched.update(64)`.

    Args:
        total: units of work.
        description: what is done.
        unit: its name.
        bar: show a bar, where standard error is a terminal or in a notebook; never in a file.
        done: units done before.
    """
    shown = _tqdm(total, description, unit, done) if bar else None
    try:
        yield Stage(total, description, unit, done, shown)
    finally:
        if shown is not None:
            shown.close()


def _tqdm(total: int, description: str, unit: str, done: int) -> Any:
    try:
        from tqdm import auto, std
    except ImportError:  # a convenience, not a dependency
        return None
    # None: shown on a terminal alone. A notebook is no terminal, but draws its bars itself.
    disable = None if auto.notebook_tqdm is std.tqdm else False
    return auto.tqdm(total=total, desc=description, unit=unit, initial=done, leave=False, disable=disable)


def clock(seconds: float) -> str:
    """0:07, 12:30 or 2:03:00."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
