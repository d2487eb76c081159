"""P x K batches: full groups, across cameras by either rule, deterministic, resumable."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from ise_fast.data import PKSampler
from ise_fast.data.sampler import Rule

rng = np.random.default_rng(0)
LABELS = rng.integers(-1, 20, 300)  # noise included
CAMS = rng.integers(0, 5, 300)


@pytest.mark.parametrize("rule", ["published", "balanced"])
@pytest.mark.parametrize("cams", [CAMS, None], ids=["cameras", "no cameras"])
def test_every_batch_is_full_groups_of_distinct_clusters(cams: np.ndarray | None, rule: Rule) -> None:
    sampler = PKSampler(LABELS, cams, 64, 8, iterations=30, seed=1, rule=rule)
    batches = list(sampler)
    assert len(batches) == len(sampler) == 30
    for batch in batches:
        groups = LABELS[batch].reshape(8, 8)
        assert (groups == groups[:, :1]).all()
        assert (groups >= 0).all()
        assert len(np.unique(groups[:, 0])) == 8


# The number of a cluster's images that may follow the first one decides: K of them, and none comes twice.
@pytest.mark.parametrize(("cams", "elsewhere"), [(None, 5), ([0, 1, 1, 1, 1, 1], 5), ([0] * 6, 5)])
def test_published_rule_repeats_below_k_other_images(cams: list[int] | None, elsewhere: int) -> None:
    for k, repeats in ((elsewhere, False), (elsewhere + 1, True)):
        # Image 0 leads: the other ones share a camera, so where cameras count they would be followed by image 0 alone.
        groups = [b for b in PKSampler([0] * 6, cams, k, k, iterations=300) if b[0] == 0]
        assert len(groups) > 20
        assert all(0 not in group[1:] for group in groups)
        assert any(len(set(group)) < k for group in groups) == repeats
        assert {index for group in groups for index in group[1:]} == {1, 2, 3, 4, 5}


def test_published_rule_draws_from_other_cameras_than_the_first_images() -> None:
    cams = np.array([0] * 50 + [1] * 3 + [2])
    groups = np.array(list(PKSampler(np.zeros(54, dtype=int), cams, 6, 6, iterations=3000)))
    assert (cams[groups[:, 1:]] != cams[groups[:, :1]]).all()
    np.testing.assert_allclose(np.bincount(groups[:, 0], minlength=54), 3000 / 54, atol=35)  # 4.7 deviations
    led = groups[cams[groups[:, 0]] == 0][:, 1:]  # by one of 50: four images are elsewhere, so with replacement
    np.testing.assert_allclose(np.bincount(led.ravel(), minlength=54)[50:] / led.size, 0.25, atol=0.02)
    rare = groups[groups[:, 0] == 53][:, 1:]  # 53 images elsewhere: without replacement
    assert len(rare) > 30
    assert all(len(set(group)) == 5 for group in rare)


@pytest.mark.parametrize("rule", ["published", "balanced"])
def test_a_cluster_of_one_image_fills_its_group(rule: Rule) -> None:
    for batch in PKSampler([0, 1, 1, 1], [0, 0, 1, 1], 8, 4, iterations=5, rule=rule):
        groups = np.array(batch).reshape(2, 4)
        assert sorted((groups == 0).all(axis=1)) == [False, True]


def population(clusters: int, images: int, cameras: int, spread: float, few: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels and cameras: sizes lognormal, shares of cameras from a Dirichlet distribution, at least two cameras."""
    random = np.random.default_rng(0)
    sizes = random.lognormal(0, spread, clusters)
    sizes = np.maximum(4, np.round(sizes / sizes.sum() * images).astype(int))
    cams = [random.choice(cameras, n, p=random.dirichlet(np.full(cameras, few))) for n in sizes]
    for of_cluster in cams:
        of_cluster[0] += (of_cluster == of_cluster[0]).all() * (1 if of_cluster[0] == 0 else -1)
    return np.repeat(np.arange(clusters), sizes), np.concatenate(cams)


MARKET, MSMT = (700, 12_000, 6, 0.55, 0.5), (1000, 25_000, 15, 0.57, 0.17)


# Distinct images of 16, times the most repeated one comes, share of rows from another camera than the first row's, as
# the published program draws them and as "balanced" does on populations of these sizes. The populations' shapes are
# not published: spread and few are chosen so that both samplers meet all their numbers.
@pytest.mark.parametrize(
    ("kind", "rule", "distinct", "most", "elsewhere"),
    [
        (MARKET, "published", 8.60, 4.42, 0.938),
        (MARKET, "balanced", 12.96, 1.69, 0.591),
        (MSMT, "published", 11.18, 3.11, 0.938),
        (MSMT, "balanced", 14.76, 1.31, None),
    ],
)
def test_statistics_of_groups(
    kind: tuple[int, int, int, float, float], rule: Rule, distinct: float, most: float, elsewhere: float | None
) -> None:
    labels, cams = population(*kind)
    groups = np.array(list(PKSampler(labels, cams, 256, 16, iterations=400, rule=rule))).reshape(-1, 16)
    times = [np.unique(group, return_counts=True)[1] for group in groups]
    assert np.mean([len(t) for t in times]) == pytest.approx(distinct, rel=0.03)
    assert np.mean([t.max() for t in times]) == pytest.approx(most, rel=0.05)
    if elsewhere is not None:
        assert (cams[groups] != cams[groups[:, :1]]).mean() == pytest.approx(elsewhere, abs=0.015)


def test_draw_rates_of_rare_and_dominant_cameras() -> None:
    """Relative to an even share; rare: a camera with at most a tenth of its cluster; dominant: the most frequent."""
    labels, cams = population(*MARKET)
    size, of_camera = np.bincount(labels)[labels], np.zeros((700, 6))
    np.add.at(of_camera, (labels, cams), 1)
    share, dominant = of_camera[labels, cams] / size, of_camera[labels, cams] == of_camera.max(axis=1)[labels]
    rates = {}
    for rule in ("published", "balanced"):
        drawn = np.bincount(np.concatenate(list(PKSampler(labels, cams, 256, 16, 800, rule=rule))), minlength=len(cams))
        rate = drawn * size / np.bincount(labels, weights=drawn)[labels]
        rates[rule] = rate[share <= 0.1].mean(), rate[dominant].mean()
    assert rates["published"] == pytest.approx((2.04, 0.51), rel=0.2)
    assert rates["balanced"] == pytest.approx((1.57, 0.86), rel=0.1)


def test_balanced_rule_fills_clusters_of_one_and_few_images_evenly() -> None:
    labels = np.array([0, 1, 1, 1, 2, 2, 2, 2, 2, 2, -1])
    sampler = PKSampler(labels, None, 12, 4, iterations=5, rule="balanced")
    for batch in sampler:
        times = {cluster: sorted(Counter(i for i in batch if labels[i] == cluster).values()) for cluster in (0, 1, 2)}
        assert times == {0: [4], 1: [1, 1, 2], 2: [1, 1, 1, 1]}


def test_balanced_rule_draws_one_image_of_every_camera_comes_before_a_second_of_any() -> None:
    cams = np.array([0] * 50 + [1] * 3 + [2])
    sampler = PKSampler(np.zeros(54, dtype=int), cams, 6, 6, iterations=200, rule="balanced")
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
        ({"rule": "even"}, "rule: expected one of published, balanced, got 'even'"),
    ],
)
def test_wrong_arguments_are_named(change: dict, message: str) -> None:
    arguments = {"labels": [0, 1], "cams": None, "batch_size": 4, "num_instances": 2, "iterations": 1, "seed": 0}
    PKSampler(**arguments)
    with pytest.raises(ValueError, match=message):
        PKSampler(**{**arguments, **change})
