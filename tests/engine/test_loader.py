from __future__ import annotations

import threading

import pytest

from ise_fast.engine.loader import prefetch


def threads() -> int:
    return sum(thread.name == "prefetch" for thread in threading.enumerate())


def test_order_and_end() -> None:
    assert list(prefetch(lambda x: x * x, range(50))) == [x * x for x in range(50)]
    assert list(prefetch(lambda x: None, range(3))) == [None] * 3
    assert threads() == 0


def test_an_error_comes_at_its_place() -> None:
    values = prefetch(lambda x: 6 // (3 - x), range(9))
    assert [next(values) for _ in range(3)] == [2, 3, 6]
    with pytest.raises(ZeroDivisionError):
        next(values)
    assert threads() == 0


def test_never_further_ahead_than_asked() -> None:
    prepared = []
    values = prefetch(prepared.append, range(100), depth=2)
    next(values)
    values.close()
    assert len(prepared) <= 5
    assert threads() == 0
