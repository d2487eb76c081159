from __future__ import annotations

import numpy as np
import pytest

from ise_fast.data import SinglesSampler

LABELS = np.array([0, 0, 0, 1, 2, 2, 3, -1, 4, 5, 5, 5, 5, 5])
CAMS = np.array([0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 0, 1, 2])
# Three clusters of four entries each and three single images: 15 entries, three batches of four a pass.


def make(seed: int = 1, iterations: int = 7) -> SinglesSampler:
    return SinglesSampler(LABELS, CAMS, 4, 4, iterations, seed) if seed else SinglesSampler(LABELS, None, 4, 2, 3)


def test_a_pass_is_cut_into_batches() -> None:
    sampler = make()
    entries = [index for batch in [sampler.batch(i) for i in range(3)] for index in batch]
    labels = LABELS[entries]
    runs = np.split(labels, np.flatnonzero(np.diff(labels)) + 1)
    assert all(len(set(run)) == 1 for run in runs)
    assert len({run[0] for run in runs}) == len(runs)  # every label once
    for run in runs[:-1]:  # the last may be cut
        assert len(run) == (1 if run[0] in (1, 3, 4) else 4)
    assert -1 not in labels
    assert [sampler.batch(i) for i in range(3, 6)] != [sampler.batch(i) for i in range(3)]


def test_a_batch_is_a_function_of_its_numbers() -> None:
    first, second = make(), make()
    expected = list(first)
    assert [second.batch(i) for i in (6, 2, 4)] == [expected[i] for i in (6, 2, 4)]
    second.set_epoch(1)
    assert list(second) != expected
    second.set_epoch(0, start=5)
    assert list(second) == expected[5:]
    assert list(make(seed=2)) != expected


def test_too_few_entries_for_a_batch() -> None:
    lacking = SinglesSampler.lacking(np.array([0, 0, 0, 1, -1]), 8, 4)
    assert lacking == "1 clusters and 1 single images give 5 rows, 8 needed to fill a batch"
    assert SinglesSampler.lacking(np.array([0, 0, 0, 1, 2, 3, 4]), 8, 4) == ""
    with pytest.raises(ValueError, match="labels: 2 clusters"):
        SinglesSampler(np.array([0, 0, 0, 1, -1]), None, 8, 4, 1)
