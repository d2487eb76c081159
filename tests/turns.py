"""Cases of a test that take turns, where all of them under everything would take too long."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TypeVar

import pytest

GOLDEN = (5**0.5 - 1) / 2
T = TypeVar("T")


def in_turn(places: Sequence[Sequence[T]], turns: int) -> set[T]:
    """Of the runs of each case in each place, one a case, in turn; in a place that comes to no case, that of the first.

    With more turns than places, some cases run nowhere. Multiples of the golden ratio decide: they fall evenly, and out
    of step with the parameters of the cases, whose values come round every two or three.
    """
    kept: set[T] = set()
    for place, runs in enumerate(places):
        own = [run for number, run in enumerate(runs) if int(number * GOLDEN % 1 * turns) == place]
        kept.update(own or runs[:1])
    return kept


def cases_of_tests(items: Iterable[pytest.Item]) -> list[list[pytest.Item]]:
    """The items of each test function."""
    tests: defaultdict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        tests[item.nodeid.partition("[")[0]].append(item)
    return list(tests.values())


def leave_out(left_out: set[pytest.Item], items: list[pytest.Item], config: pytest.Config) -> None:
    """Take them from the items, as pytest's own options do."""
    config.hook.pytest_deselected(items=list(left_out))
    items[:] = [item for item in items if item not in left_out]
