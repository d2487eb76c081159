"""PPLR's two losses: agreement, refined targets, losses against the golden run; a network with parts."""

from __future__ import annotations

import math

import pytest
import torch
from golden_data import load
from torch.nn.functional import normalize

from ise_fast.engine.config import parse
from ise_fast.engine.errors import UsageError
from ise_fast.engine.plan import make_plan, with_parts
from ise_fast.methods import METHODS, Batch, LossOutput, PseudoLabels
from ise_fast.methods.pplr import PartCentroids, PPLRSettings, part_agreement, refined_targets
from ise_fast.models import build_model


def test_agreement_and_targets_of_the_golden_run() -> None:
    golden = load("method_pplr")
    parts = normalize(golden["part_features"].transpose(1, 2), dim=2)
    agreement = part_agreement(normalize(golden["features"], dim=1), parts, int(golden["k"]))
    torch.testing.assert_close(agreement, golden["agreement"], rtol=0, atol=1e-6)
    chances = golden["part_logits"].double().softmax(1).unbind(2)
    targets = refined_targets(chances, agreement[golden["indexes"]].double(), golden["targets"], golden["beta"])
    torch.testing.assert_close(targets, golden["refined_targets_float64"], rtol=0, atol=1e-7)


def test_an_image_is_not_its_own_neighbour_among_copies() -> None:
    rows = torch.eye(4)[[0, 0, 0, 0, 1, 2, 3]]
    assert part_agreement(rows, torch.stack([rows, rows], 1), 2).eq(1).all()


def golden_memory(settings: PPLRSettings) -> tuple[PartCentroids, Batch]:
    """Centroids that are the identity, so that the golden logits are features."""
    golden = load("method_pplr")
    classes = golden["logits"].shape[1]
    memory = PartCentroids(settings, classes)
    memory.reset(torch.eye(classes))
    memory.parts = torch.eye(classes).expand(3, -1, -1).clone()
    memory.agreement = golden["agreement"]
    parts = golden["part_logits"].transpose(1, 2).contiguous().requires_grad_()
    return memory, Batch(golden["indexes"], golden["targets"], None, 5, parts=parts)


def test_losses_of_the_golden_run() -> None:
    golden = load("method_pplr")
    settings = PPLRSettings(temp=1.0, own_label=golden["beta"], refine_epoch=5)
    memory, batch = golden_memory(settings)
    features = golden["logits"].clone().requires_grad_()
    output = METHODS["pplr"].objective(settings)(features, batch, memory, 0.0)
    assert output.parts[0].item() == pytest.approx(golden["pglr_loss"], rel=1e-5)
    # The published term is a divergence from the uniform distribution, less by a constant.
    doubt = 1 - golden["agreement"][golden["indexes"]]
    apart = doubt.mean().item() * math.log(golden["logits"].shape[1])
    assert output.parts[1].item() - apart == pytest.approx(golden["aals_loss"].mean().item(), rel=1e-5)
    assert output.loss.item() == pytest.approx(output.parts[0].item() + output.parts[1].item())
    assert batch.parts is not None
    whole, by_parts = torch.autograd.grad(output.loss, (features, batch.parts))
    assert (whole - golden["pglr_grad"]).abs().max() < 3e-6
    assert (3 * by_parts.transpose(1, 2) - golden["aals_grad"]).abs().max() < 3e-6


def test_the_first_epochs_smooth_labels() -> None:
    settings = PPLRSettings(temp=1.0)
    memory, batch = golden_memory(settings)
    assert batch.parts is not None
    logits = load("method_pplr")["logits"]
    output = METHODS["pplr"].objective(settings)(logits, batch._replace(epoch=4), memory, 0.0)
    expected = torch.nn.functional.cross_entropy(logits, batch.labels, label_smoothing=0.1)
    assert output.parts[0].item() == pytest.approx(expected.item(), rel=1e-5)
    first = torch.nn.functional.cross_entropy(
        batch.parts.flatten(0, 1), batch.labels.repeat_interleave(3), label_smoothing=0.1
    )
    assert output.parts[1].item() == pytest.approx(first.item(), rel=1e-5)


def test_the_memory_follows_parts_and_comes_back_from_a_checkpoint() -> None:
    x = normalize(torch.randn(12, 4, 8, generator=torch.Generator().manual_seed(0)), dim=2)
    labels = torch.arange(12) % 3
    settings = PPLRSettings(agreement_neighbours=4, momentum=0.5, memory_mode="momentum")
    memory = METHODS["pplr"].memory(settings, 8)
    memory.begin(x[:, 0], PseudoLabels(labels, parts=x[:, 1:]), None)
    assert isinstance(memory, PartCentroids)
    assert memory.parts.shape == (3, 3, 8)
    assert memory.agreement.shape == (12, 3)
    assert torch.allclose(memory.parts[1, 2], normalize(x[2::3, 2].mean(0), dim=0), atol=1e-6)
    before = memory.parts.clone()
    batch = Batch(torch.tensor([0]), torch.tensor([0]), None, parts=x[:1, 1:])
    memory.follow(x[:1, 0], batch, LossOutput(torch.ones(1)))
    assert torch.allclose(memory.parts[2, 0], normalize(before[2, 0] + x[0, 3], dim=0), atol=1e-6)
    assert torch.equal(memory.parts[:, 1:], before[:, 1:])
    other = PartCentroids(settings, 8)
    other.load_state_dict(memory.state_dict())
    assert torch.equal(other.parts, memory.parts)
    assert torch.equal(other.agreement, memory.agreement)


def test_a_network_with_parts() -> None:
    torch.manual_seed(0)
    model = build_model("small", parts=2).eval()
    images = torch.rand(3, 3, 64, 32)
    whole = model(images)
    model.gives_parts = True
    rows = model(images).unflatten(1, (3, -1))
    assert torch.equal(rows[:, 0], whole)
    assert torch.allclose(rows.norm(dim=2), torch.ones(3, 3), atol=1e-6)
    upper = images.clone()
    upper[:, :, 60:] = 0  # what a lower stripe alone sees
    assert not torch.equal(model(upper).unflatten(1, (3, -1))[:, 2], rows[:, 2])
    model.part_necks = torch.nn.ModuleList(torch.nn.BatchNorm1d(model.num_features) for _ in range(99)).eval()
    with pytest.raises(ValueError, match=r"parts: expected at most the .* rows of the feature map, got 99"):
        model(images)
    with pytest.raises(ValueError, match="parts: expected 0 or more, got -1"):
        build_model("small", parts=-1)


def test_more_neighbours_than_images() -> None:
    objective = METHODS["pplr"].objective(PPLRSettings())
    objective.check(21)
    with pytest.raises(ValueError, match="--agreement-neighbours: expected fewer than the training images, 20, got 20"):
        objective.check(20)


@pytest.mark.parametrize(
    ("words", "parts"), [("--method pplr", 3), ("--method pplr --parts 2", 2), ("--method ise", 0)]
)
def test_parts_of_the_network(words: str, parts: int) -> None:
    config = parse(words.split())
    assert with_parts(config, make_plan(config)).model.parts == parts


def test_parts_for_a_method_without() -> None:
    config = parse(["--method", "spcl", "--parts", "3"])
    with pytest.raises(UsageError, match="--parts: expected 0 for --method spcl, which has no use for parts, got 3"):
        with_parts(config, make_plan(config))
