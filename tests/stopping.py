"""Whether a signal ends a running operator."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest


class Stop(Exception):
    pass


def interrupt(call: Callable[[], object], name: str) -> None:
    """A signal ends the operator `name` itself, not the first line of Python after it.

    Measured in seconds of work of this process, which a busy machine does not stretch.
    """
    ended_by_exception: list[str] = []

    def stop(*_: object) -> None:
        raise Stop

    def watch(_: object, event: str, function: Any) -> None:
        if event == "c_exception":
            ended_by_exception.append(function.__name__)

    previous = signal.signal(signal.SIGVTALRM, stop)
    start = time.process_time()
    signal.setitimer(signal.ITIMER_VIRTUAL, 0.15)
    sys.setprofile(watch)
    try:
        with pytest.raises(Stop):
            call()
    finally:
        sys.setprofile(None)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, previous)
    assert name in ended_by_exception
    assert time.process_time() - start < 4.3  # 2 seconds, on two threads, after the signal
