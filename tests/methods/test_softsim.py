"""SoftSim: the similar images against all distances, the loss and memory against the golden run."""

from __future__ import annotations

import pytest
import torch
from golden_data import load
from torch import Tensor
from torch.nn.functional import normalize

from ise_fast.engine.config import parse
from ise_fast.engine.errors import UsageError
from ise_fast.engine.plan import make_plan
from ise_fast.methods import METHODS, Batch, PseudoLabels
from ise_fast.methods.similar_labels import SimilarLabels, SimilarSettings, similar_images
from ise_fast.methods.softsim import SoftMemory, SoftSimSettings


def by_all_distances(x: Tensor, cams: Tensor | None, count: int, penalty: float) -> Tensor:
    distances = torch.cdist(x.double(), x.double()).float().double()
    if cams is not None:
        distances = distances + penalty * (cams[:, None] == cams)
    return distances.fill_diagonal_(torch.inf).argsort(dim=1, stable=True)[:, :count]


@pytest.mark.parametrize("penalty", [0.0, 0.02, 5.0])  # 5: all of the own camera come last
@pytest.mark.parametrize("known", [True, False])
def test_the_most_similar_of_all_images(penalty: float, known: bool) -> None:
    generator = torch.Generator().manual_seed(2)
    x = normalize(torch.randn(60, 8, generator=generator), dim=1)
    cams = torch.randint(3, (60,), generator=generator) if known else None
    rows, distances = similar_images(x, cams, 5, penalty)
    assert torch.equal(rows, by_all_distances(x, cams, 5, penalty))
    assert bool((distances.diff(dim=1) >= 0).all())


def test_copies_and_as_many_as_there_are() -> None:
    x = torch.eye(4)[[0, 0, 0, 1, 2]]
    rows, distances = similar_images(x, None, 4, 0.0)
    assert rows.tolist() == [[1, 2, 3, 4], [0, 2, 3, 4], [0, 1, 3, 4], [0, 1, 2, 4], [0, 1, 2, 3]]
    assert distances[0].tolist() == pytest.approx([0, 0, 2**0.5, 2**0.5])


def test_hard_labels_come_first() -> None:
    x = normalize(torch.randn(20, 8, generator=torch.Generator().manual_seed(1)), dim=1)
    labels = SimilarLabels(SimilarSettings(similar=3, hard_epochs=2))
    assert [labels.due(epoch) for epoch in range(4)] == [True, False, True, True]
    assert labels(x, None, 0).similar is None
    soft = labels(x, None, 2)
    assert soft.similar is not None
    assert soft.similar.shape == (20, 3)
    assert set(soft.figures) == set(SimilarLabels.figures)
    labels.check(4)
    with pytest.raises(ValueError, match="--similar: expected fewer than the training images, 3, got 3"):
        labels.check(3)


def test_loss_and_gradient_of_the_golden_run() -> None:
    golden = load("method_softsim")
    settings = SoftSimSettings(temp=float(golden["temperature"]), own_share=float(golden["lambda_self"]))
    objective = METHODS["softsim"].objective(settings)
    memory = METHODS["softsim"].memory(settings, golden["table"].shape[1])
    assert isinstance(memory, SoftMemory)
    labels, index = torch.arange(len(golden["table"])), golden["indexes"]
    memory.begin(golden["table"], PseudoLabels(labels, similar=golden["reliable"]), None)
    features = golden["inputs"].clone().requires_grad_()
    output = objective(features, Batch(index, index, None), memory, 0.0)
    assert output.loss.item() == pytest.approx(float(golden["loss_mean"]), rel=1e-5)
    (gradient,) = torch.autograd.grad(len(features) * output.loss, features)
    assert (gradient - golden["grad_of_sum"]).abs().max() < 3e-6 * 5  # of the sum of 16 losses
    saved = memory.state_dict()
    other = SoftMemory(memory.num_features, 0.5)
    other.load_state_dict(saved)
    assert torch.equal(other.similar, golden["reliable"])


def test_without_similar_images_the_own_is_the_target() -> None:
    x = normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(1)), dim=1)
    settings = SoftSimSettings(momentum=0.5)
    memory, objective = METHODS["softsim"].memory(settings, 4), METHODS["softsim"].objective(settings)
    memory.begin(x, PseudoLabels(torch.arange(6)), None)
    index = torch.tensor([4, 1])
    batch = Batch(index, index, None)
    output = objective(x[:2].clone().requires_grad_(), batch, memory, 0.0)
    expected = torch.nn.functional.cross_entropy(x[:2] @ x.T / 0.1, index)
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    memory.follow(x[:2], batch, output)
    assert torch.allclose(memory.table[4], normalize(x[4] + x[0], dim=0), atol=1e-6)
    assert torch.allclose(memory.table[0], x[0])


def test_labels_of_others_are_refused() -> None:
    with pytest.raises(UsageError, match="--labels: softsim takes only its own, similar, got kmeans"):
        make_plan(parse(["--method", "softsim", "--labels", "kmeans"]))
