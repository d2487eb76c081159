"""The peers of benchmarks.peers that need nothing but torch compute what ours compute. No GPU is needed."""

from __future__ import annotations

import torch

from benchmarks import peers
from benchmarks.profile.workloads.base import images
from benchmarks.profile.workloads.heads import batch
from ise_fast import ops


def test_neighbours_are_the_same() -> None:
    x = images(256, 64)
    found = [run for _, module, run in peers.neighbour_peers(x) if not module]
    for run in found:
        assert torch.equal(run().sort(1).values, ops.knn(x, peers.NEIGHBOURS).indices.sort(1).values)
    assert found


def test_gradients_are_the_same() -> None:
    given = batch({"B": 32, "K": 40, "d": 64}, False)
    found = [run() for _, module, run in peers.loss_peers(*given) if not module]
    for gradient in found:
        torch.testing.assert_close(gradient, peers.our_loss(*given)[1], rtol=1e-4, atol=2e-5)
    assert found


def test_the_whole_way_finds_the_groups_that_look_alike() -> None:
    assert int(peers.labels(images(512, 64)).max()) >= 3
