"""The loss modules: defaults, the degree's curve, and the training loop of the README."""

from __future__ import annotations

import doctest
import math
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from golden_data import load, names
from torch import Tensor
from torch.nn.functional import normalize

from ise_fast import reference
from ise_fast.nn import (
    ClusterMemory,
    ClusterNCELoss,
    ISELoss,
    cluster_memory,
    cycle_association,
    instance_memory,
    losses,
)

UnitRows = Callable[..., Tensor]


@pytest.mark.parametrize("module", [cluster_memory, cycle_association, instance_memory, losses])
def test_examples_of_the_docstrings_run(module: ModuleType) -> None:
    failed, attempted = doctest.testmod(module)
    assert attempted > 0
    assert failed == 0


@pytest.mark.parametrize("name", names("head"))
def test_golden(name: str) -> None:
    g = load(name)
    memory = ClusterMemory(g["features"].shape[1], g["momentum"], g["update"])
    memory.reset(g["memory_before"])
    criterion = ISELoss(g["topk"], 0.25, g["tau"], g["tau_lp"], g["lp_weight"])
    features = g["features"].clone().requires_grad_()
    out = criterion(features, g["labels"], memory, g["progress"])
    out.loss.backward()
    memory.update(features, g["labels"], supports=out.supports)
    assert out.loss.item() == pytest.approx(g["loss"], rel=2e-6)
    torch.testing.assert_close(features.grad, g["grad"], rtol=0, atol=4e-6 * float(g["grad"].abs().max()))
    torch.testing.assert_close(memory.centroids, g["memory_after"], rtol=0, atol=4e-7)


def test_defaults_are_the_published_ones() -> None:
    criterion = ISELoss()
    assert (criterion.k, criterion.base_degree, criterion.temperature) == (1, 0.25, 0.05)
    assert (criterion.lp_temperature, criterion.lp_weight) == (0.6, 0.1)
    assert ClusterNCELoss().temperature == 0.05
    memory = ClusterMemory(4)
    assert (memory.momentum, memory.mode) == (0.2, "hard")


def test_degree_grows_with_progress(unit_rows: UnitRows, device: torch.device) -> None:
    f, c, y = unit_rows(4, 8, 1).to(device), unit_rows(5, 8, 2), torch.tensor([0, 0, 3, 4], device=device)
    memory = ClusterMemory(8).to(device)
    memory.reset(c)
    start = ISELoss(k=2)(f, y, memory, 0.0)
    torch.testing.assert_close(start.supports, f[:, None].expand(4, 2, 8))
    end = ISELoss(k=2, base_degree=0.5)(f, y, memory, 1.0)
    nearest = reference.nearest_centroids(f, memory.centroids, y, 2).indices
    expected = reference.support_samples(f, memory.centroids, y, nearest, 0.5)
    torch.testing.assert_close(end.supports, expected)


def test_supports_for_the_label_preserving_term_alone(unit_rows: UnitRows, device: torch.device) -> None:
    f, y = unit_rows(6, 8, 1).to(device).requires_grad_(), torch.tensor([0, 0, 3, 4, 3, 4], device=device)
    memory = ClusterMemory(8).to(device)
    memory.reset(unit_rows(5, 8, 2))
    out = ISELoss(k=2, lp_weight=0.3, contrast_supports=False)(f, y, memory, 0.5)
    assert torch.equal(out.contrastive, ClusterNCELoss()(f, y, memory))
    whole = ISELoss(k=2, lp_weight=0.3)(f, y, memory, 0.5)
    assert torch.equal(out.label_preserving, whole.label_preserving)
    (ours,) = torch.autograd.grad(out.loss, f)
    parts = [torch.autograd.grad(part, f)[0] for part in (ClusterNCELoss()(f, y, memory), whole.label_preserving)]
    torch.testing.assert_close(ours, parts[0] + 0.3 * parts[1])

    # The memory moves as the baseline's does.
    baseline = ClusterMemory(8).to(device)
    baseline.reset(unit_rows(5, 8, 2))
    memory.update(f.detach(), y, supports=out.supports)
    baseline.update(f.detach(), y)
    assert torch.equal(memory.centroids, baseline.centroids)


def test_cluster_nce(unit_rows: UnitRows, device: torch.device) -> None:
    f, c, y = unit_rows(4, 8, 1).to(device), unit_rows(5, 8, 2), torch.tensor([0, 0, 3, 4], device=device)
    memory = ClusterMemory(8).to(device)
    memory.reset(c)
    loss = ClusterNCELoss(temperature=0.1)(f, y, memory)
    torch.testing.assert_close(loss, reference.cluster_nce_loss(f, y, memory.centroids, 0.1))


@pytest.mark.parametrize("mode", ["hard", "momentum"])
def test_training_with_operators_equals_training_with_the_reference(mode: str, device: torch.device) -> None:
    """A few steps of a linear encoder from one seed: losses, weights and memory agree."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(12, 10, generator=generator).to(device)
    labels = torch.arange(12, device=device) % 4
    start = normalize(torch.randn(6, 16, generator=generator), dim=1)
    weight = torch.randn(16, 10, generator=generator).to(device)

    fused = weight.clone().requires_grad_()
    memory = ClusterMemory(16, 0.2, mode).to(device)
    memory.reset(start)
    criterion = ISELoss(k=2)
    plain = weight.clone().requires_grad_()
    centroids = memory.centroids.clone()
    optimisers = [torch.optim.SGD([w], lr=0.05, momentum=0.9) for w in (fused, plain)]
    for step in range(5):
        features = normalize(images @ fused.T, dim=1)
        out = criterion(features, labels, memory, step / 4)
        optimisers[0].zero_grad()
        out.loss.backward()
        optimisers[0].step()
        memory.update(features, labels, supports=out.supports)

        features = normalize(images @ plain.T, dim=1)
        degree = reference.interpolation_degree(step / 4)
        expected = reference.ise_loss(features, labels, centroids, degree, k=2)
        optimisers[1].zero_grad()
        expected.loss.backward()
        optimisers[1].step()
        rows = torch.cat([features.detach(), expected.supports.flatten(0, 1)])
        reference.update_memory_(centroids, rows, torch.cat([labels, labels.repeat_interleave(2)]), 0.2, mode)

        assert math.isclose(out.loss.item(), expected.loss.item(), rel_tol=1e-4)
    assert (fused - weight).abs().max() > 1e-2
    torch.testing.assert_close(fused, plain, rtol=0, atol=1e-4)
    torch.testing.assert_close(memory.centroids, centroids, rtol=0, atol=1e-5)


# In a process of its own: in this one, memory that earlier tests have freed would be used again and not be seen.
LARGE_STEP = """
import torch
from benchmarks.measure import PeakMemory
from ise_fast.nn import ClusterMemory, ISELoss
memory = ClusterMemory(32)
memory.reset(torch.nn.functional.normalize(torch.randn(100_000, 32)))
f, y = torch.nn.functional.normalize(torch.randn(256, 32)).requires_grad_(), torch.arange(256) // 16
with PeakMemory(torch.device("cpu")) as peak:
    out = ISELoss()(f, y, memory, 0.5)
    out.loss.backward()
    memory.update(f, y, out.supports)
print(peak.extra)
"""


def test_scratch_of_a_step_is_bounded() -> None:
    """At 100,000 centroids the products with the features take 102 MB; the direct form needs twice the limit."""
    run = subprocess.run([sys.executable, "-c", LARGE_STEP], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert 100e6 < int(run.stdout) < 300e6


def test_too_few_centroids_and_bad_progress(device: torch.device) -> None:
    memory = ClusterMemory(4).to(device)
    memory.reset(torch.eye(4)[:2])
    f, y = torch.eye(4, device=device)[:1], torch.tensor([0], device=device)
    ISELoss(k=1)(f, y, memory, 0.5)
    with pytest.raises(ValueError, match=r"^k: expected .*, got 2"):
        ISELoss(k=2)(f, y, memory, 0.5)
    with pytest.raises(ValueError, match=r"^progress: expected a finite number in \[0, 1\], got 1.1"):
        ISELoss()(f, y, memory, 1.1)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"k": 0}, ValueError, "k: "),
        ({"k": 1.5}, TypeError, "k: "),
        ({"base_degree": 1.1}, ValueError, "base_degree: "),
        ({"temperature": 0}, ValueError, "temperature: "),
        ({"lp_temperature": -1}, ValueError, "lp_temperature: "),
        ({"lp_weight": math.nan}, ValueError, "lp_weight: "),
    ],
)
def test_bad_constructor(arguments: dict[str, float], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}"):
        ISELoss(**arguments)
