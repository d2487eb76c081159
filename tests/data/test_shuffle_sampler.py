"""Batches of images in random order."""

from __future__ import annotations

import numpy as np
import pytest

from ise_fast.data import ShuffleSampler

LABELS = np.array([0, -1, 1, 2, 2, -1, 3, 0, 4, 5, 6, 6, 7])


def test_each_pass_has_every_labelled_image_at_most_once() -> None:
    sampler = ShuffleSampler(LABELS, None, 4, 1, 6, seed=3)
    sampler.set_epoch(2)
    batches = list(sampler)
    assert len(batches) == 6
    passes = [batches[start] + batches[start + 1] for start in (0, 2, 4)]  # 11 images: two batches, three left out
    for entries in passes:
        assert len(set(entries)) == 8
        assert (LABELS[entries] >= 0).all()
    assert len({tuple(entries) for entries in passes}) == 3
    assert set(np.concatenate(passes).tolist()) <= set(np.flatnonzero(LABELS >= 0).tolist())


def test_a_batch_follows_from_seed_epoch_and_number() -> None:
    first, second = (ShuffleSampler(LABELS, None, 4, 1, 6, seed=3) for _ in range(2))
    list(first)
    assert first.batch(4) == second.batch(4)
    second.set_epoch(1)
    assert first.batch(4) != second.batch(4)


def test_too_few_images() -> None:
    assert ShuffleSampler.lacking(LABELS, 11, 1) == ""
    assert ShuffleSampler.lacking(LABELS, 12, 1) == "11 labelled images, 12 needed to fill a batch"
    with pytest.raises(ValueError, match="labels: "):
        ShuffleSampler(LABELS, None, 12, 1, 1)
