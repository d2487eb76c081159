"""Mixed batches and smoothed labels against losses written out, for every method that has classes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from ise_fast import ops
from ise_fast.engine.config import parse
from ise_fast.engine.errors import UsageError
from ise_fast.engine.plan import make_plan
from ise_fast.methods import METHODS, Batch, Mix, PseudoLabels, read_settings
from ise_fast.methods.softened import Softened, mixed_rows, soften

LABELS = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5])
CAMS = torch.tensor([0, 1] * 6)
ROWS = torch.tensor([1, 2, 5, 7, 8])
MIX = Mix(torch.tensor([2, 0, 1, 4, 3]), 0.7)


def setting(name: str) -> tuple[torch.Tensor, Batch, Any, Any]:
    """Features of a batch, the batch, a memory that has begun, and the objective."""
    torch.manual_seed(0)
    features = normalize(torch.randn(12, 8), dim=1)
    method = METHODS[name]
    settings = read_settings(method.settings, parse(["--method", name]).settings)
    memory = method.memory(settings, 8)
    memory.begin(features, PseudoLabels(LABELS), CAMS)
    batch = Batch(ROWS, LABELS[ROWS], CAMS[ROWS], epoch=9)
    return normalize(torch.randn(5, 8), dim=1), batch, memory, method.objective(settings)


def test_smoothing_is_the_usual_one() -> None:
    features, batch, memory, objective = setting("cluster-contrast")
    output = Softened(objective, 0.2)(features, batch, memory, 0.5)
    logits = features @ memory.centroids.T / 0.05
    expected = cross_entropy(logits, batch.labels, label_smoothing=0.2)
    torch.testing.assert_close(output.loss, expected, rtol=1e-5, atol=0)
    assert Softened(objective, 0.2).parts == ("spread",)
    torch.testing.assert_close(output.parts[0], -logits.log_softmax(1).mean(), rtol=1e-5, atol=0)


def test_mixed_images_have_two_labels() -> None:
    features, batch, memory, objective = setting("cluster-contrast")
    output = Softened(objective)(features, batch._replace(mix=MIX), memory, 0.5)
    columns = torch.stack([batch.labels, batch.labels[MIX.partner]], dim=1)
    weights = torch.tensor([[0.7, 0.3]]).expand(5, 2).contiguous()
    expected = ops.soft_nce_loss(features, memory.centroids, columns, weights, 0.05)
    torch.testing.assert_close(output.loss, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_mixed_rows_and_their_gradient(share: float) -> None:
    torch.manual_seed(1)
    rows = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    expected = normalize(share * rows + (1 - share) * rows[MIX.partner], dim=1)
    torch.testing.assert_close(mixed_rows(rows, MIX.partner, share), expected)
    assert torch.autograd.gradcheck(lambda rows: mixed_rows(rows, MIX.partner, share), [rows])
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], requires_grad=True)  # nothing is left of them
    mixed = mixed_rows(opposite, torch.tensor([1, 0]), 0.5)
    mixed.sum().backward()
    assert not mixed.any()
    assert opposite.grad.isfinite().all()


@pytest.mark.parametrize("name", ["ise", "cluster-contrast", "spcl", "cap", "buc", "softsim", "ise-spcl", "ise-cap"])
def test_mixed_features(name: str) -> None:
    features, batch, memory, objective = setting(name)
    features.requires_grad_()
    softened = soften(objective, mixed=True, smoothing=0.1)
    output = softened(features, batch._replace(mix=MIX._replace(features=True)), memory, 0.5)
    mixed = normalize(0.7 * features + 0.3 * features[MIX.partner], dim=1)
    other = Batch(ROWS[MIX.partner], batch.labels[MIX.partner], CAMS[ROWS][MIX.partner], 9)
    losses = [objective(mixed, labelled, memory, 0.5).loss for labelled in (batch, other)]
    spread = -(mixed @ memory.classes.T / objective.temperature).log_softmax(1).mean()
    expected = 0.9 * (0.7 * losses[0] + 0.3 * losses[1]) + 0.1 * spread
    torch.testing.assert_close(output.loss, expected, rtol=1e-5, atol=1e-6)
    ours, written = (torch.autograd.grad(loss, features, retain_graph=True)[0] for loss in (output.loss, expected))
    torch.testing.assert_close(ours, written, rtol=1e-4, atol=1e-5)
    assert len(output.parts) == len(softened.parts)
    torch.testing.assert_close(output.parts[-1], spread, rtol=1e-5, atol=1e-6)
    assert output.supports is None


def test_nothing_to_soften() -> None:
    *_, objective = setting("ise")
    assert soften(objective, mixed=False, smoothing=0.0) is objective
    assert make_plan(parse([])).objective.parts == ("contrastive", "label_preserving")
    assert make_plan(parse(["--label-smoothing", "0.1"])).objective.parts[-1] == "spread"


def test_methods_that_cannot() -> None:
    *_, objective = setting("spcl")
    objective.temperature = None
    with pytest.raises(ValueError, match="--label-smoothing: expected 0 with this method"):
        soften(objective, mixed=False, smoothing=0.1)
    objective.mixes = False
    with pytest.raises(ValueError, match="--mix: expected none with this method"):
        soften(objective, mixed=True, smoothing=0.0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--mix blend", "--mix: expected one of none, mixup, cutmix, feature, got 'blend'"),
        ("--mix-alpha 0", "--mix-alpha: expected a number from 0.001 to 1e+03, got 0"),
        ("--mix-probability 2", "--mix-probability: expected a number from 0 to 1, got 2"),
        ("--label-smoothing -1", "--label-smoothing: expected a number from 0 to 1, got -1"),
    ],
)
def test_bad_settings(words: str, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse(words.split())
    assert str(raised.value).startswith(said)
