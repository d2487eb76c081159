"""The clustering of rows on a GPU, on the host: every tensor where it must be, and the bits of the CPU."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import pytest
import torch
from simt.build import build_library
from torch import Tensor

from ise_fast.ops.jaccard import encode
from ise_fast.sharded import HeldRows, JaccardSettings, Peers, StoredRows, cluster
from ise_fast.sharded.centroids import shared_centroids
from ise_fast.sharded.density import own_dbscan
from ise_fast.sharded.encoding import encode_own
from ise_fast.sharded.neighbours import own_neighbours
from ise_fast.sharded.radius import own_radius
from tests.sharded.elsewhere import ELSEWHERE, ThereTensor, elsewhere
from tests.sharded.shapes import clustered, copied

GPU = Callable[[], AbstractContextManager[None]]


@pytest.fixture(scope="module")
def gpu() -> GPU:
    """with gpu(): ELSEWHERE is a device that runs the CUDA kernels."""
    torch.ops.load_library(str(build_library(os.environ.get("ISE_FAST_SIMT_VARIANT", "race"))))
    return partial(elsewhere, torch.ops.ise_fast_simt)


def here(tensor: Tensor) -> Tensor:
    assert isinstance(tensor, ThereTensor)
    assert tensor.device == ELSEWHERE
    return tensor.inner


def test_a_tensor_of_the_cpu_beside_one_elsewhere_is_found(gpu: GPU) -> None:
    with gpu():
        x = torch.arange(3, device=ELSEWHERE)
        assert (x + torch.ones((), dtype=torch.int64)).tolist() == [1, 2, 3]
        with pytest.raises(AssertionError, match="expected all tensors on one device"):
            x + torch.arange(3)


def test_pseudo_labels_stay_on_the_device_of_the_rows(gpu: GPU) -> None:
    x, settings = copied(120, 6, 1), JaccardSettings(k1=9, k2=3)
    nn, v = encode(x, 9, 3)
    expected = cluster(HeldRows("x", x, Peers()), settings)
    centroids = shared_centroids(HeldRows("x", x, Peers()), expected.labels)
    with gpu():
        features = HeldRows("x", x.to(ELSEWHERE), Peers())
        near = own_neighbours(features, 9)
        assert here(near).equal(nn.int())
        assert all(here(a).equal(b) for a, b in zip(encode_own(features, near, 3), v, strict=True))
        labels, core = cluster(features, settings)
        assert here(shared_centroids(features, labels)).equal(centroids)
    assert labels.equal(expected.labels)
    assert core.equal(expected.core_mask)
    assert int(labels.max()) > 5


def test_dbscan_of_features_stays_there_too(gpu: GPU) -> None:
    x = clustered(90, 5, 2)
    expected = own_dbscan(own_radius(HeldRows("x", x, Peers()), 0.4, "euclidean"), 0.4, 3)
    with gpu():
        features = HeldRows("x", x.to(ELSEWHERE), Peers())
        found = own_dbscan(own_radius(features, 0.4, "euclidean"), 0.4, 3)
    assert here(found.labels).equal(expected.labels)
    assert here(found.core_mask).equal(expected.core_mask)
    assert int(found.labels.inner.max()) > 2


def test_rows_of_a_file_are_compared_there_and_clustered_here(gpu: GPU) -> None:
    x, settings = clustered(100, 6, 3), JaccardSettings(k1=9, k2=3)
    expected = cluster(HeldRows("x", x, Peers()), settings)
    with gpu():
        found = cluster(StoredRows(x, device=ELSEWHERE, block=40), settings)
    assert found.labels.equal(expected.labels)
    assert found.core_mask.equal(expected.core_mask)
