"""Loading ahead: a thread prepares the next batches while the device computes on this one."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from typing import Any, TypeVar

S = TypeVar("S")
T = TypeVar("T")


def prefetch(prepare: Callable[[S], T], items: Iterable[S], depth: int = 2) -> Generator[T, None, None]:
    """`map(prepare, items)` in order, computed up to `depth` items ahead in a thread.

    An exception of `prepare` is raised at the place of its item. Closing the iterator early ends the thread. Nothing
    random may live in `prepare` except what its item determines: how far the thread got must not show in the results.
    """
    ready: queue.Queue[tuple[bool, Any]] = queue.Queue(maxsize=depth)
    closed = threading.Event()

    def offer(entry: tuple[bool, Any]) -> bool:
        while not closed.is_set():
            try:
                ready.put(entry, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not offer((True, prepare(item))):
                    return
            offer((False, None))
        except BaseException as error:  # handed to the consumer
            offer((False, error))

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            more, value = ready.get()
            if more:
                yield value
            elif value is None:
                return
            else:
                raise value
    finally:
        closed.set()
        thread.join()
