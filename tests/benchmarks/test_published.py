"""The published way, as the benchmarks write it, gives the published numbers."""

from __future__ import annotations

import numpy as np
import pytest
from golden_data import load

from benchmarks.published.labels import jaccard_distance, pseudo_labels


@pytest.mark.parametrize("name", ["jaccard_small", "jaccard_k2_1", "jaccard_odd_k1"])
def test_labels_and_distances_equal_the_golden_numbers(name: str) -> None:
    golden = load(name)
    x, k1, k2 = golden["features"], int(golden["k1"]), int(golden["k2"])
    distance = jaccard_distance(x, k1, k2)
    np.testing.assert_allclose(distance, golden["jaccard"].numpy(), atol=2e-6)
    labels = pseudo_labels(x, k1, k2, float(golden["eps"]), int(golden["min_samples"]))
    assert labels.tolist() == golden["labels"].tolist()
