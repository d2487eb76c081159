"""The published way, as the benchmarks write it, gives the published numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden_data import load, names

from benchmarks.published.head import ise_loss, update_memory
from benchmarks.published.labels import jaccard_distance, pseudo_labels
from benchmarks.published.merging import merge


@pytest.mark.parametrize("name", ["jaccard_small", "jaccard_k2_1", "jaccard_odd_k1"])
def test_labels_and_distances_equal_the_golden_numbers(name: str) -> None:
    golden = load(name)
    x, k1, k2 = golden["features"], int(golden["k1"]), int(golden["k2"])
    distance = jaccard_distance(x, k1, k2)
    np.testing.assert_allclose(distance, golden["jaccard"].numpy(), atol=2e-6)
    labels = pseudo_labels(x, k1, k2, float(golden["eps"]), int(golden["min_samples"]))
    assert labels.tolist() == golden["labels"].tolist()


@pytest.mark.parametrize("name", names("head"))
def test_head_equals_the_golden_numbers(name: str) -> None:
    golden = load(name)
    f, y, c = golden["features"].requires_grad_(), golden["labels"], golden["memory_before"].clone()
    arguments = (golden["effective_lambda"], golden["topk"], golden["tau"], golden["tau_lp"], golden["lp_weight"])
    loss, supports, support_y = ise_loss(f, y, c, *arguments)
    (gradient,) = torch.autograd.grad(loss, f)
    torch.testing.assert_close(supports, golden["supports"], atol=1e-6, rtol=0)
    assert loss.item() == pytest.approx(golden["loss"], rel=1e-5)
    torch.testing.assert_close(gradient, golden["grad"], atol=1e-6, rtol=1e-4)
    rows, rows_y = torch.cat([f, supports]).detach(), torch.cat([y, support_y])
    update_memory(c, rows, rows_y, golden["momentum"], golden["update"])
    torch.testing.assert_close(c, golden["memory_after"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["method_buc", "method_buc_penalty"])
def test_merging_equals_the_golden_steps(name: str) -> None:
    golden = load(name)
    for step, x in enumerate(golden["features"]):
        labels = merge(x, golden["labels_before"][step], golden["size_penalty"], golden["merges_per_step"])
        assert labels.tolist() == golden["labels_after"][step].tolist()
