"""A long stage of work: a bar on a terminal alone, and a line in the log every tenth where there is no terminal."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest

from ise_fast import _progress
from ise_fast._progress import stage


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that stages see; a test sets clock[0]."""
    now = [0.0]
    monkeypatch.setattr(_progress.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    logger = logging.getLogger("ise_fast._progress")
    logger.addHandler(caplog.handler)  # the console of a run before this test may have taken propagation away
    with caplog.at_level(logging.INFO, "ise_fast._progress"):
        yield caplog
    logger.removeHandler(caplog.handler)


def work(clock: list[float], seconds: float, *, done: int = 0) -> None:
    """A stage of 40 steps of so many seconds together."""
    with stage(40, "epoch 3/70", "iterations", bar=False, done=done) as watched:
        for step in range(done, 40):
            clock[0] += seconds / 40
            if step == 7:
                watched.note("loss 1.250")
            watched.update()


def test_long_stage_says_every_tenth(clock: list[float], lines: pytest.LogCaptureFixture) -> None:
    work(clock, 4000.0)
    said = list(dict.fromkeys(record.getMessage() for record in lines.records))
    assert len(said) == 9  # not the last tenth: the line of the epoch follows
    assert said[0] == "epoch 3/70: 4 of 40 iterations (10%), 6:40 so far, about 1:00:00 left"
    assert said[1] == "epoch 3/70: 8 of 40 iterations (20%), loss 1.250, 13:20 so far, about 53:20 left"


def test_short_stage_is_silent(clock: list[float], lines: pytest.LogCaptureFixture) -> None:
    work(clock, 59.0)
    assert not lines.records


def test_resumed_stage_estimates_from_its_own_steps(clock: list[float], lines: pytest.LogCaptureFixture) -> None:
    work(clock, 400.0, done=20)
    assert lines.records[0].getMessage() == "epoch 3/70: 24 of 40 iterations (60%), 0:40 so far, about 2:40 left"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("file", "drawn"), [(Terminal, True), (io.StringIO, False)])
def test_bar_on_a_terminal_alone(file: type[io.StringIO], drawn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tqdm")
    screen = file()
    monkeypatch.setattr("sys.stderr", screen)
    with stage(10, "decode", "images", bar=True) as watched:
        watched.update(10)
    assert ("decode" in screen.getvalue()) is drawn
    assert bool(screen.getvalue()) is drawn
