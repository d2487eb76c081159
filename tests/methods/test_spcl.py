"""SpCL: labels against the estimator and the golden run, the memory as the source of the next labels."""

from __future__ import annotations

import pytest
import torch
from golden_data import load

from ise_fast.engine.assemble import make_plan
from ise_fast.engine.config import parse
from ise_fast.engine.errors import UsageError
from ise_fast.methods import METHODS, Batch, PseudoLabels
from ise_fast.methods.self_paced_labels import SelfPacedLabels, SelfPacedSettings
from ise_fast.methods.spcl import HybridMemory, SpCLSettings


def test_labels_and_threshold_of_several_epochs() -> None:
    golden = load("method_spcl_reliability")
    settings = SelfPacedSettings(
        k1=int(golden["k1"]), k2=int(golden["k2"]), eps=float(golden["eps"]), eps_gap=float(golden["eps_gap"]),
        min_samples=int(golden["min_samples"]),
    )  # fmt: skip
    labels = SelfPacedLabels(settings)
    for epoch, features in enumerate(golden["features"]):
        resumed = SelfPacedLabels(settings)
        resumed.load_state_dict(labels.state_dict())
        result = labels(features, None, epoch)
        expected = golden["refined_openunreid"][epoch]
        assert torch.equal(result.labels[:, None] == result.labels, expected[:, None] == expected)
        assert result.figures["threshold"] == pytest.approx(float(golden["indep_threshold"][epoch]), abs=1e-7)
        assert torch.equal(resumed(features, None, epoch).labels, result.labels)
        summary = result.summary(singles_apart=True)
        assert summary["smallest"] > 1
        assert summary["clusters"] + summary["outliers"] == result.clusters
    assert labels.state_dict() == {"threshold": result.figures["threshold"]}


@pytest.mark.parametrize("words", ["--eps-gap 0.7", "--eps 0.99 --eps-gap 0.02"])
def test_radii_that_cannot_be(words: str) -> None:
    with pytest.raises(UsageError, match="--eps-gap: expected at most --eps = "):
        make_plan(parse(["--method", "spcl", *words.split()]))


def test_steps_of_the_published_memory() -> None:
    golden = load("method_spcl_memory")
    table, ids = (golden[name] for name in ("memory_before", "labels"))
    labels = ids.unique(return_inverse=True)[1]
    settings = SpCLSettings(temp=float(golden["temperature"]), momentum=float(golden["momentum"]))
    memory, objective = METHODS["spcl"].memory(settings, table.shape[1]), METHODS["spcl"].objective(settings)
    assert isinstance(memory, HybridMemory)
    assert memory.rows is None
    memory.begin(table, PseudoLabels(labels), None)
    for step, inputs in enumerate(golden["inputs"]):
        features = inputs.clone().requires_grad_()
        index = golden["indexes"][step]
        batch = Batch(index, labels[index], None)
        output = objective(features, batch, memory, 0.0)
        output.loss.backward()
        assert output.loss.item() == pytest.approx(float(golden["loss"][step]), rel=1e-5)
        assert features.grad is not None
        assert (features.grad - golden["grad"][step]).abs().max() < 3e-6
        memory.follow(features.detach(), batch, output)
        assert memory.rows is not None
        assert (memory.rows - golden["memory_after"][step]).abs().max() < 1e-6


def test_the_next_epoch_keeps_the_rows() -> None:
    memory = HybridMemory(4, 0.5)
    features = torch.eye(4)
    memory.begin(features, PseudoLabels(torch.tensor([0, 0, 1, 2])), None)
    memory.follow(features[:1], Batch(torch.tensor([2]), torch.tensor([1]), None), output=None)  # type: ignore[arg-type]
    moved = memory.table.clone()
    assert not torch.equal(moved, features)
    rows = memory.rows
    assert rows is not None
    memory.begin(rows, PseudoLabels(torch.tensor([0, 1, 1, 1])), None)
    assert torch.equal(memory.table, moved)
    assert torch.allclose(memory.sums[1], moved[1:].sum(0))
