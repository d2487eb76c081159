"""MMCL: golden losses and memories through the method, its schedule, and where no hard negative is left."""

from __future__ import annotations

import pytest
import torch
from golden_data import load
from torch.nn.functional import normalize

from ise_fast.methods import METHODS, Batch, PseudoLabels
from ise_fast.methods.mmcl import ClassMemory, MMCLObjective, MMCLSettings, with_negatives
from ise_fast.types import CSRGraph


@pytest.mark.parametrize("name", ["mmcl", "mmcl_published"])
@pytest.mark.parametrize("kind", ["single", "multi"])
def test_golden_steps(name: str, kind: str) -> None:
    golden = load(f"method_{name}")
    epoch = int(golden["epoch"])
    settings = MMCLSettings(
        similarity=float(golden["threshold"]), candidates=int(golden["min_candidates"]), delta=float(golden["delta"]),
        hard_share=float(golden["hard_ratio"]), single_epochs=epoch + (kind == "single"),
    )  # fmt: skip
    table, index = golden["memory_before"], golden["targets"]
    memory, objective = METHODS["mmcl"].memory(settings, table.shape[1]), METHODS["mmcl"].objective(settings)
    assert isinstance(memory, ClassMemory)
    memory.reset(table)
    memory.table.copy_(table)
    features = golden[f"{kind}_inputs"].clone().requires_grad_()
    batch = Batch(index, index, None, epoch)
    output = objective(features, batch, memory, 0.0)
    assert output.loss.item() == pytest.approx(float(golden[f"{kind}_loss"]), rel=1e-5)
    (gradient,) = torch.autograd.grad(output.loss, features)
    assert (gradient - golden[f"{kind}_grad"]).abs().max() < 3e-6
    memory.follow(features.detach(), batch, output)
    assert memory.momentum == pytest.approx(float(golden["momentum"]))
    assert (memory.table - golden[f"{kind}_memory_after"]).abs().max() < 1e-6


def test_the_memory_starts_at_zero_and_goes_on() -> None:
    memory = ClassMemory(MMCLSettings(momentum=0.5, momentum_epochs=4), 4)
    assert memory.rows is None
    x = normalize(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    memory.begin(x, PseudoLabels(torch.arange(3)), None)
    assert not memory.table.any()
    for epoch, momentum in ((0, 0.0), (2, 0.25), (9, 0.5)):
        memory.follow(x[:1], Batch(torch.tensor([1]), torch.tensor([1]), None, epoch), None)  # type: ignore[arg-type]
        assert memory.momentum == momentum
    moved = memory.table.clone()
    assert moved[1].any()
    assert not moved[[0, 2]].any()
    memory.begin(x, PseudoLabels(torch.arange(3)), None)
    assert torch.equal(memory.table, moved)


def test_below_101_images_there_is_no_hard_negative() -> None:
    objective = MMCLObjective(MMCLSettings())
    objective.check(101)
    message = "--hard-share: expected at least 1 / 99, so that one of the 99 negative classes .* got 0.01"
    with pytest.raises(ValueError, match=message):
        objective.check(100)
    with pytest.raises(ValueError, match="--hard-share: expected at least 1 / 1"):
        objective.check(1)


def test_images_that_are_all_alike() -> None:
    """A network that has learnt nothing: every row is a positive, and the loss is still a number."""
    settings = MMCLSettings(single_epochs=0)
    memory, objective = ClassMemory(settings, 4), MMCLObjective(settings)
    memory.reset(torch.ones(120, 4))
    index = torch.tensor([3, 50])
    features = memory.table[index].clone().requires_grad_()
    output = objective(features, Batch(index, index, None, 0), memory, 0.0)
    assert output.loss.item() == pytest.approx(4.0)  # nothing for the own row, 2^2 for the hard negative
    assert output.parts[0].item() == 1


def test_only_rows_without_hard_negatives_are_changed() -> None:
    indptr, indices = torch.tensor([0, 2, 5]), torch.tensor([1, 3, 0, 1, 2], dtype=torch.int32)
    graph = CSRGraph(indptr, indices, torch.arange(5.0), (2, 5))
    changed = with_negatives(graph, torch.tensor([3, 1]), 0.4)  # 0.4 of 3 is one, of 2 none
    assert changed.indptr.tolist() == [0, 2, 3]
    assert changed.indices.tolist() == [1, 3, 1]
    assert changed.values.tolist() == [0, 1, 3]
    assert with_negatives(graph, torch.tensor([3, 1]), 0.5).indices.tolist() == indices.tolist()
