"""Batches of pairs of frames."""

from __future__ import annotations

from itertools import groupby

import numpy as np
import pytest
from numpy.typing import NDArray

from ise_fast.data import FramePairSampler

#: Four frames of 2, 3, 4 and 5 images are two moments; one image is in none.
FRAMES = np.array([0, 0, 1, 1, 1, -1, 2, 2, 2, 2, 3, 3, 3, 3, 3])
MOMENTS = np.array([0, 0, 0, 0, 0, -1, 1, 1, 1, 1, 1, 1, 1, 1, 1])


def frames_of(batch: list[int]) -> list[tuple[int, int]]:
    """(frame, images) of each run of images of one frame."""
    return [(int(frame), len(list(images))) for frame, images in groupby(FRAMES[batch])]


def test_pairs_of_a_moment_follow_each_other() -> None:
    sampler = FramePairSampler(MOMENTS, FRAMES, 12, 4, 40, seed=1)
    seen = set()
    for batch in sampler:
        assert len(batch) == 12
        runs = frames_of(batch)
        for (first, n), (second, m) in zip(runs[::2], runs[1::2], strict=False):
            assert {first, second} in ({0, 1}, {2, 3})
            seen.add((first, n, second, m))
        for frame, images in runs:
            assert images <= min(4, int((frame == FRAMES).sum()))
        assert {frame // 2 for frame, _ in runs[:4]} == {0, 1}  # each moment before one comes again
        twice = sum(n for _, n in runs[:4])
        assert len(set(batch[:twice])) == twice  # each image once
    assert {(0, 2, 1, 3), (1, 3, 0, 2), (2, 4, 3, 4), (3, 4, 2, 4)} <= seen


def test_a_pair_that_finds_no_room_is_cut() -> None:
    cut = {size: [frames_of(batch) for batch in FramePairSampler(MOMENTS, FRAMES, size, 5, 30)] for size in (5, 10)}
    assert {tuple(n for _, n in runs) for runs in cut[5]} == {(2, 3), (3, 2)}
    assert all(sum(n for _, n in runs) == 10 for runs in cut[10])
    shares: set[tuple[int, ...]] = {tuple(n for _, n in runs) for runs in cut[10]}
    assert (2, 3, 2, 3) in shares  # frames of 4 and 5 in the room for 5


def test_a_frame_that_ends_a_pair_begins_none() -> None:
    """With two frames in all, every pair is the same two."""
    only: NDArray[np.bool_] = MOMENTS == 0
    for batch in FramePairSampler(MOMENTS[only], FRAMES[only], 20, 4, 20):
        assert [n for _, n in frames_of(batch)] in ([2, 3] * 4, [3, 2] * 4)


def test_a_batch_follows_from_seed_epoch_and_number() -> None:
    first, second = (FramePairSampler(MOMENTS, FRAMES, 12, 4, 6, seed=3) for _ in range(2))
    list(first)
    assert first.batch(4) == second.batch(4)
    assert first.batch(4) != first.batch(5)
    second.set_epoch(1)
    assert first.batch(4) != second.batch(4)


def test_what_is_lacking() -> None:
    assert FramePairSampler.lacking(MOMENTS, 12, 4) == ""
    assert FramePairSampler.lacking(np.full(3, -1), 12, 4) == "no two frames, 2 needed for a pair"
    with pytest.raises(ValueError, match="labels: "):
        FramePairSampler(np.full(3, -1), np.full(3, -1), 12, 4, 1)
    assert FramePairSampler.lacking(MOMENTS, 12, 1) == "1 image of a frame, 2 needed to tell people apart"
