"""BUC: golden merges and losses through the method, the schedule of its steps, and dropout that follows from a seed."""

from __future__ import annotations

import pytest
import torch
from golden_data import load
from torch import Tensor
from torch.nn.functional import normalize

from ise_fast.methods import METHODS, Batch, PseudoLabels
from ise_fast.methods.bottom_up_labels import BottomUpLabels, BottomUpSettings
from ise_fast.methods.buc import BUCSettings, RepelledMemory


@pytest.mark.parametrize("name", ["buc", "buc_penalty"])
def test_golden_merges_of_several_steps(name: str) -> None:
    golden = load(f"method_{name}")
    settings = BottomUpSettings(
        merge_share=float(golden["merge_percent"]), size_penalty=float(golden["size_penalty"]), first_epochs=1,
        step_epochs=1,
    )  # fmt: skip
    labels = BottomUpLabels(settings)
    first = labels(golden["features"][0], None, 0)
    assert torch.equal(first.labels, golden["labels_before"][0])
    for step, features in enumerate(golden["features"]):
        resumed = BottomUpLabels(settings)
        resumed.load_state_dict(labels.state_dict())
        result = labels(features, None, step + 1)
        assert torch.equal(result.labels, golden["labels_after"][step])
        assert result.figures["merges"] == golden["merges_per_step"]
        assert result.figures["dissimilarity"] == pytest.approx(
            float(golden["merged_dissimilarity"][step, -1]), abs=1e-6
        )
        assert torch.equal(resumed(features, None, step + 1).labels, result.labels)


def test_epochs_of_the_published_steps() -> None:
    """20 epochs, then 19 mergings, each with two epochs of training; then no more."""
    labels = BottomUpLabels(BottomUpSettings())
    due = [epoch for epoch in range(100) if labels.due(epoch)]
    assert due == [0, *range(20, 58, 2)]


def test_no_more_merges_than_there_are_clusters() -> None:
    """All that is left merges into one, which the trainer then finds too few for batches of clusters."""
    labels = BottomUpLabels(BottomUpSettings(merge_share=0.4, first_epochs=1, step_epochs=1))
    x = normalize(torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    counts = [labels(x, None, epoch).clusters for epoch in range(5)]
    assert counts == [5, 3, 1, 1, 1]
    assert labels(x, None, 5).figures == {"merges": 0}


def test_golden_loss_on_a_table_from_zero() -> None:
    golden = load("method_buc")
    settings = BUCSettings(temp=1 / float(golden["inverse_temperature"]), dropout=0.0)
    width, labels = golden["table_before"].shape[1], torch.arange(len(golden["table_before"]))
    memory, objective = METHODS["buc"].memory(settings, width), METHODS["buc"].objective(settings)
    assert isinstance(memory, RepelledMemory)
    memory.begin(torch.ones(len(labels), width), PseudoLabels(labels), None)
    assert torch.equal(memory.table, golden["table_before"])
    for step, inputs in enumerate(golden["loss_inputs"]):
        features = inputs.clone().requires_grad_()
        y = golden["loss_labels"][step]
        batch = Batch(y, y, None)
        output = objective(features, batch, memory, 0.0)
        assert output.loss.item() == pytest.approx(float(golden["loss"][step]), rel=1e-5)
        (gradient,) = torch.autograd.grad(output.loss, features)
        assert (gradient - golden["loss_grad"][step]).abs().max() < 3e-6
        memory.follow(features.detach(), batch, output)
        assert (memory.table - golden["table_after"][step]).abs().max() < 1e-6


def test_dropout_follows_from_the_seed_and_reaches_the_memory() -> None:
    x = normalize(torch.randn(64, 32, generator=torch.Generator().manual_seed(0)), dim=1)
    index = torch.arange(64)

    def drawn(share: float, seed: int) -> tuple[Tensor, ...]:
        batch = Batch(index, index, None, seed=seed)
        return METHODS["buc"].objective(BUCSettings(dropout=share)).drawn(x, batch, 0.0)

    (kept,) = drawn(0.25, 7)
    assert torch.equal(kept, drawn(0.25, 7)[0])
    assert not torch.equal(kept, drawn(0.25, 8)[0])
    assert drawn(0.0, 7) == ()
    assert 0.7 < kept.float().mean() < 0.8
    settings = BUCSettings(dropout=0.25)
    memory, objective = RepelledMemory(32, 0.5), METHODS["buc"].objective(settings)
    memory.begin(x, PseudoLabels(index), None)
    batch = Batch(index, index, None, seed=7)
    output = objective(x.clone().requires_grad_(), batch, memory, 0.0)
    assert output.rows is not None
    assert torch.equal(output.rows, x * kept / 0.75)
    memory.follow(x, batch, output)
    assert torch.allclose(memory.table, normalize(x * kept, dim=1), atol=1e-6)
