"""CAP against the steps of the published code, and what it needs."""

from __future__ import annotations

import pytest
import torch
from golden_data import load

from ise_fast.methods import METHODS, Batch, PseudoLabels
from ise_fast.methods.cap import CAPSettings, Proxies, camera_shares, proxy_groups


@pytest.mark.parametrize("name", ["method_cap", "method_cap_all_negatives"])
def test_steps_of_the_published_code(name: str) -> None:
    g = load(name)
    settings = CAPSettings(
        temp=g["temperature"], momentum=g["momentum"], cross_weight=g["cross_weight"],
        cross_epoch=g["cross_from_epoch"], hard_negatives=g["hard_negatives"],
    )  # fmt: skip
    method = METHODS["cap"]
    memory, objective = method.memory(settings, g["features"].shape[1]), method.objective(settings)
    assert isinstance(memory, Proxies)
    for step, epoch in enumerate(g["epochs"].tolist()):
        if g["iterations"][step] == 0:
            groups = proxy_groups(g["labels"], g["cameras"])
            memory.begin(g["features"], PseudoLabels(g["labels"], groups=groups), g["cameras"])
            assert groups.equal(memory.reset(g["features"], g["labels"], g["cameras"]))
        index = g["indexes"][step]
        batch = Batch(index, g["labels"][index], g["cameras"][index], epoch)
        features = g["inputs"][step].clone().requires_grad_()
        output = objective(features, batch, memory, 0.0)
        output.loss.backward()
        assert output.loss.item() == pytest.approx(float(g["loss_words_float64"][step]), rel=1e-5)
        parts = [g["intra_float64"][step], g["inter_float64"][step] if epoch >= settings.cross_epoch else 0.0]
        assert [part.item() for part in output.parts] == pytest.approx([float(x) for x in parts], rel=1e-5)
        assert features.grad is not None
        assert (features.grad - g["grad_words_float64"][step]).abs().max() < 3e-6 * 5
        memory.follow(features.detach(), batch, output)
        assert (memory.proxies - g["proxies_after"][step]).abs().max() < 1e-6


def test_each_camera_of_a_batch_counts_the_same() -> None:
    shares = camera_shares(torch.tensor([4, 0, 4, 4]))
    torch.testing.assert_close(shares, torch.tensor([4 / 3, 4.0, 4 / 3, 4 / 3]))


def test_groups_are_cameras_of_clusters() -> None:
    labels, cams = torch.tensor([1, -1, 0, 1, 1, 0]), torch.tensor([2, 0, 0, 2, 0, 0])
    assert proxy_groups(labels, cams).tolist() == [2, -1, 0, 2, 1, 0]
