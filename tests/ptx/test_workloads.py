"""Workloads from which counts can be extrapolated: what a row costs does not depend on how many rows there are."""

from __future__ import annotations

import re

import pytest
import torch

import ise_fast.ops  # noqa: F401  registers torch.ops.ise_fast
from benchmarks.profile.interpreter import ROOT
from benchmarks.profile.workloads import WORKLOADS
from benchmarks.profile.workloads.base import ALIKE, IMAGES, images
from benchmarks.profile.workloads.labels import EPS, PAIRS, VALUES, WIDTH, encoding
from benchmarks.profile.workloads.neighbours import NEIGHBOURS, RADIUS


@pytest.mark.parametrize("n", [256, 1024])
def test_a_row_has_the_same_neighbours_pairs_and_entries_at_every_size(n: int) -> None:
    x = images(n, WIDTH)
    nn = torch.ops.ise_fast.knn(x, NEIGHBOURS, None, "cosine", 0)[1]
    own = torch.arange(n)[:, None] // (IMAGES * ALIKE)
    assert bool((nn // (IMAGES * ALIKE) == own).all())
    v = encoding(n)
    assert len(v[1]) / n == pytest.approx(VALUES, rel=0.05)
    pairs = torch.ops.ise_fast.jaccard_graph(*v, EPS, 0, n)[1]
    assert len(pairs) / n == pytest.approx(PAIRS, rel=0.05)


def test_rows_within_the_radius_do_not_grow_with_their_number() -> None:
    sizes = [256, 1024]
    pairs = [len(torch.ops.ise_fast.radius_graph(images(n, WIDTH), RADIUS, "cosine", 0)[1]) / n for n in sizes]
    assert pairs[1] == pytest.approx(pairs[0], rel=0.05)
    assert pairs[0] >= IMAGES


def test_a_search_is_counted_beyond_the_buffer_that_its_first_rows_fill() -> None:
    source = (ROOT / "csrc" / "cuda" / "knn.cu").read_text()
    capacity = int(re.search(r"kSmallCapacity = (\d+)", source)[1])  # type: ignore[index]
    assert WORKLOADS["knn"].small["N"] >= 4 * capacity


def test_rows_are_in_blocks_as_the_search_cuts_them() -> None:
    """Of the published sizes; the counted ones are of several blocks, too."""
    source = (ROOT / "csrc" / "cuda" / "candidate_lists.cuh").read_text()
    least, most, blocks = map(
        int, re.search(r"kLeastBlock = (\d+), kMostBlock = (\d+), kBlocks = (\d+)", source).groups()
    )  # type: ignore[union-attr]
    for name in ("knn_half", "knn_by_prefixes"):
        for shape in WORKLOADS[name].published:
            assert shape["T"] == min(max(-(-(shape["N"] // blocks) // 256) * 256, least), most)
        for counted in (WORKLOADS[name].small, WORKLOADS[name].held):
            assert counted["N"] >= 2 * counted["T"]
