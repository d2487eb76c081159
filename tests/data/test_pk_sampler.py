"""P x K batches: full groups, across cameras, deterministic, resumable."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from ise_fast.data import PKSampler

rng = np.random.default_rng(0)
LABELS = rng.integers(-1, 20, 300)  # noise included
CAMS = rng.integers(0, 5, 300)


@pytest.mark.parametrize("cams", [CAMS, None], ids=["cameras", "no cameras"])
def test_every_batch_is_full_groups_of_distinct_clusters(cams: np.ndarray | None) -> None:
    sampler = PKSampler(LABELS, cams, 64, 8, iterations=30, seed=1)
    batches = list(sampler)
    assert len(batches) == len(sampler) == 30
    for batch in batches:
        groups = LABELS[batch].reshape(8, 8)
        assert (groups == groups[:, :1]).all()
        assert (groups >= 0).all()
        assert len(np.unique(groups[:, 0])) == 8


def test_clusters_of_one_and_few_images_fill_their_group_evenly() -> None:
    labels = np.array([0, 1, 1, 1, 2, 2, 2, 2, 2, 2, -1])
    sampler = PKSampler(labels, None, 12, 4, iterations=5)
    for batch in sampler:
        times = {cluster: sorted(Counter(i for i in batch if labels[i] == cluster).values()) for cluster in (0, 1, 2)}
        assert times == {0: [4], 1: [1, 1, 2], 2: [1, 1, 1, 1]}


def test_one_image_of_every_camera_comes_before_a_second_of_any() -> None:
    cams = np.array([0] * 50 + [1] * 3 + [2])
    sampler = PKSampler(np.zeros(54, dtype=int), cams, 6, 6, iterations=200)
    for batch in sampler:
        assert len(set(batch)) == 6
        counts = Counter(cams[batch].tolist())
        assert counts[2] == 1
        assert counts[1] >= 2  # rounds: one of each camera, then 0 and 1, then one more of either
    drawn = np.unique(np.concatenate(list(sampler)))
    assert len(drawn) == 54  # nobody is left out


def test_all_clusters_come_once_in_a_pass() -> None:
    labels = np.repeat(np.arange(12), 4)
    batches = list(PKSampler(labels, None, 16, 4, iterations=6, seed=3))
    for first in (0, 3):
        seen = np.concatenate([labels[batch][::4] for batch in batches[first : first + 3]])
        assert sorted(seen) == list(range(12))


def test_same_seed_same_batches_and_another_epoch_or_seed_others() -> None:
    def draw(seed: int, epoch: int) -> list[list[int]]:
        sampler = PKSampler(LABELS, CAMS, 64, 8, iterations=4, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert draw(1, 2) == draw(1, 2)
    assert draw(1, 2) != draw(1, 3)
    assert draw(1, 2) != draw(2, 2)


def test_the_images_of_a_cluster_change_with_epoch_and_iteration() -> None:
    sampler = PKSampler(np.zeros(100, dtype=int), None, 8, 8, iterations=2)
    first, second = sampler
    sampler.set_epoch(1)
    assert first != second
    assert sampler.batch(0) != first


def test_resuming_in_the_middle_of_an_epoch_continues_exactly() -> None:
    sampler = PKSampler(LABELS, CAMS, 64, 8, iterations=20, seed=5)
    sampler.set_epoch(7)
    whole = list(sampler)
    resumed = PKSampler(LABELS, CAMS, 64, 8, iterations=20, seed=0)
    resumed.load_state_dict({**sampler.state_dict(), "start": 13})
    assert list(resumed) == whole[13:]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 0, 1, 1, -1], "2 clusters, 4 needed.*lower --batch-size to 8 or less.*--eps"),
        ([-1, -1, -1], "0 clusters, 4 needed.*raise --eps"),
        ([], "0 clusters"),
    ],
)
def test_too_few_clusters_name_the_remedy(labels: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PKSampler(np.array(labels, dtype=np.int64), None, 16, 4, iterations=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [[0, 1]]}, r"labels: expected \[N\] integers, got shape \(1, 2\)"),
        ({"labels": [0.0, 1.0]}, "labels: expected .* of float64"),
        ({"cams": [0]}, r"cams: expected shape \(2,\)"),
        ({"batch_size": 5}, r"batch_size: expected a multiple of num_instances \(2\), got 5"),
        ({"num_instances": 0}, "num_instances: expected at least 1, got 0"),
        ({"iterations": -1}, "iterations"),
        ({"seed": -1}, "seed"),
    ],
)
def test_wrong_arguments_are_named(change: dict, message: str) -> None:
    arguments = {"labels": [0, 1], "cams": None, "batch_size": 4, "num_instances": 2, "iterations": 1, "seed": 0}
    PKSampler(**arguments)
    with pytest.raises(ValueError, match=message):
        PKSampler(**{**arguments, **change})
