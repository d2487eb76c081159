from __future__ import annotations

import torch

from ise_fast.methods import follow_tracklets


def follow(labels: list[int], tracklets: list[int]) -> list[int]:
    found: list[int] = follow_tracklets(torch.tensor(labels), torch.tensor(tracklets)).tolist()
    return found


def test_the_most_frequent_label_of_a_tracklet() -> None:
    assert follow([1, 1, 0, 2], [0, 0, 0, 0]) == [0, 0, 0, 0]
    assert follow([1, 1, 0, 2], [0, 0, 0, -1]) == [0, 0, 0, 1]
    assert follow([3, 1, 0, 1], [7, 7, 7, 2]) == [0, 0, 0, 1]  # three votes each: the lowest label
    assert follow([0, 1, 2], [-1, -1, -1]) == [0, 1, 2]


def test_outliers_have_no_vote_but_follow() -> None:
    assert follow([-1, -1, 4, 0], [0, 0, 0, 1]) == [1, 1, 1, 0]
    assert follow([-1, -1, 4], [0, 0, 1]) == [-1, -1, 0]
    assert follow([-1, -1], [0, -1]) == [-1, -1]


def test_against_loops() -> None:
    g = torch.Generator().manual_seed(0)
    labels, tracklets = torch.randint(-1, 8, (200,), generator=g), torch.randint(-1, 30, (200,), generator=g)
    expected = labels.clone()
    for t in range(30):
        votes = labels[(tracklets == t) & (labels >= 0)].tolist()
        winner = min(set(votes), key=lambda label: (-votes.count(label), label)) if votes else -1
        expected[tracklets == t] = winner
    renumbered = {old: new for new, old in enumerate(sorted(set(expected.tolist()) - {-1}))} | {-1: -1}
    assert follow_tracklets(labels, tracklets).tolist() == [renumbered[label] for label in expected.tolist()]
