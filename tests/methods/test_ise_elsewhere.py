"""ISE on the memories of SpCL and CAP."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from ise_fast import ops
from ise_fast.methods import Batch, LossOutput, PseudoLabels
from ise_fast.methods.cap import CAPObjective, Proxies
from ise_fast.methods.ise_cap import ISECAPSettings, ISEOnProxies
from ise_fast.methods.ise_spcl import DirectedMemory, ISEOnGroups, ISESpCLSettings

LABELS = torch.tensor([0, 0, 0, 1, 1, 2, 3, 3, 4, 4])
CAMS = torch.tensor([0, 0, 1, 0, 1, 0, 0, 1, 2, 0])
ROWS = torch.tensor([0, 2, 4, 5, 8, 9])


def features_of(count: int, seed: int) -> torch.Tensor:
    return normalize(torch.randn(count, 6, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_groups_of_images_are_the_centroids() -> None:
    memory = DirectedMemory(6, 0.2)
    memory.begin(features_of(10, 0), PseudoLabels(LABELS), None)
    objective = ISEOnGroups(ISESpCLSettings())
    f, batch = features_of(6, 1), Batch(ROWS, LABELS[ROWS], None)
    output = objective(f, batch, memory, 0.5)
    expected = ops.ise_loss(f, batch.labels, normalize(memory.sums, dim=1), ops.interpolation_degree(0.5, 0.25))
    torch.testing.assert_close(output.loss, expected.loss)
    assert output.supports is None
    assert objective.figures_at(0.5) == {"degree": ops.interpolation_degree(0.5, 0.25)}


def test_the_unit_means_follow_and_come_back_from_a_checkpoint() -> None:
    memory, other = DirectedMemory(6, 0.2), DirectedMemory(6, 0.2)
    memory.begin(features_of(10, 0), PseudoLabels(LABELS), None)
    assert memory.gram is not None
    for step in (1, 2):
        memory.follow(features_of(6, step), Batch(ROWS, LABELS[ROWS], None), LossOutput(torch.ones(())))
    assert memory.centroids.equal(normalize(memory.sums, dim=1))
    torch.testing.assert_close(memory.gram, memory.centroids @ memory.centroids.T, rtol=0, atol=1e-6)
    memory.get_buffer("centroids")[0, 0] += 1e-6  # a bit that only a checkpoint can tell
    kept = memory.gram.clone()
    other.load_state_dict(memory.state_dict())
    assert other.centroids.equal(memory.centroids)
    assert other.gram is not None
    assert other.gram.equal(kept)
    other.begin(features_of(10, 0), PseudoLabels(LABELS.flip(0)), None)
    torch.testing.assert_close(other.gram, other.centroids @ other.centroids.T, rtol=0, atol=1e-6)
    before = {name: part for name, part in memory.state_dict().items() if name not in ("centroids", "_extra_state")}
    other.load_state_dict(before)
    assert other.centroids.equal(normalize(memory.sums, dim=1))


def test_without_a_step_towards_others_it_is_cap() -> None:
    """At degree 0 a support is its own feature. Camera 2 has one proxy, and no other for a support."""
    memory = Proxies(6, 0.2)
    memory.begin(features_of(10, 0), PseudoLabels(LABELS), CAMS)
    settings = ISECAPSettings(base_degree=0.0, lp_weight=0.0, cross_epoch=3)
    batch = Batch(ROWS, LABELS[ROWS], CAMS[ROWS], epoch=3)
    f = features_of(6, 1).requires_grad_()
    outputs = [make(settings)(f, batch, memory, 0.5) for make in (ISEOnProxies, CAPObjective)]  # type: ignore[operator]
    torch.testing.assert_close(outputs[0].loss, outputs[1].loss)
    ours, caps = (torch.autograd.grad(output.loss, f)[0] for output in outputs)
    along = (caps * f).sum(1, keepdim=True) * f  # the ISE loss has no gradient along f
    torch.testing.assert_close(ours - (ours * f).sum(1, keepdim=True) * f, caps - along, rtol=1e-4, atol=1e-5)


def test_supports_go_to_other_proxies_of_the_camera() -> None:
    memory = Proxies(6, 0.2)
    memory.begin(features_of(10, 0), PseudoLabels(LABELS), CAMS)
    f, batch = features_of(6, 1), Batch(ROWS, LABELS[ROWS], CAMS[ROWS], epoch=0)
    output = ISEOnProxies(ISECAPSettings())(f, batch, memory, 0.5)
    expected, degree = [], ops.interpolation_degree(0.5, 0.25)
    for camera in (0, 1):
        rows, own = batch.cams == camera, memory.cams == camera  # type: ignore[union-attr]
        labels = torch.searchsorted(memory.labels[own], batch.labels[rows])
        expected.append(ops.ise_loss(f[rows], labels, memory.proxies[own], degree, temperature=0.07))
    assert output.parts[0].item() == pytest.approx(sum(float(out.contrastive) for out in expected), rel=1e-5)
    assert output.parts[1] == 0
    assert output.parts[2].item() == pytest.approx(sum(float(out.label_preserving) for out in expected), rel=1e-5)
