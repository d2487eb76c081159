"""Nothing is left out for good where the cases of a test take turns."""

from __future__ import annotations

import pytest
from turns import in_turn


@pytest.mark.parametrize("cases", range(1, 40))
def test_every_case_runs_and_every_schedule_is_tried(cases: int) -> None:
    runs = [[(place, number) for number in range(cases)] for place in range(3)]
    kept = in_turn(runs, 3)
    assert {number for _, number in kept} == set(range(cases))
    assert {place for place, _ in kept} == {0, 1, 2}
    assert len(kept) <= max(cases, 3) + 1


def test_a_third_is_even_and_out_of_step_with_parameters() -> None:
    kept = in_turn([range(300)], 3)
    assert 98 <= len(kept) <= 102
    for period in (2, 3, 4):
        shares = [len([number for number in kept if number % period == i]) * period / 100 for i in range(period)]
        assert all(0.9 < share < 1.1 for share in shares)


def test_the_only_case_runs() -> None:
    assert in_turn([["only"]], 3) == {"only"}
