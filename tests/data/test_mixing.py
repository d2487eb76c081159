"""Mixed images: shares, boxes, partners inside their chunk."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ise_fast.data import Mixing, MixParameters

SIZE = (20, 10)


def drawn(mixing: Mixing, batch: int = 12, seed: int = 0) -> MixParameters:
    parameters = mixing.draw(batch, SIZE, np.random.default_rng(seed))
    assert parameters is not None
    return parameters


@pytest.mark.parametrize(("chunk", "starts"), [(4, [0, 4, 8]), (5, [0, 5, 10]), (12, [0])])
def test_partners_stay_in_their_chunk(chunk: int, starts: list[int]) -> None:
    partner = drawn(Mixing("mixup", 1.0, 1.0, chunk)).partner.tolist()
    for start, stop in zip(starts, [*starts[1:], 12], strict=True):
        assert sorted(partner[start:stop]) == list(range(start, stop))
    assert partner != list(range(12))


def test_mixup() -> None:
    images = torch.rand(12, 3, *SIZE)
    mixing = Mixing("mixup", 0.4, 1.0, 4)
    parameters = drawn(mixing)
    assert 0 <= parameters.share <= 1
    expected = parameters.share * images + (1 - parameters.share) * images[parameters.partner]
    torch.testing.assert_close(mixing.apply(images, parameters), expected)
    # A process has its own part of the batch.
    torch.testing.assert_close(mixing.apply(images[4:8], parameters, 4), expected[4:8])


def test_features_are_mixed_later() -> None:
    images = torch.rand(4, 3, *SIZE)
    mixing = Mixing("feature", 1.0, 1.0, 4)
    assert mixing.apply(images, drawn(mixing, 4)) is images


@pytest.mark.parametrize("seed", range(20))
def test_cutmix(seed: int) -> None:
    images = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 3, *SIZE)
    mixing = Mixing("cutmix", 1.0, 1.0, 8)
    parameters = drawn(mixing, 8, seed)
    mixed = mixing.apply(images, parameters)
    own = (mixed == images).double().mean(dim=(1, 2, 3))
    moved = parameters.partner != torch.arange(8)
    torch.testing.assert_close(own[moved], torch.full_like(own[moved], parameters.share))
    assert parameters.box is not None
    y0, x0, y1, x1 = parameters.box
    assert 0 <= y0 <= y1 <= SIZE[0]
    assert 0 <= x0 <= x1 <= SIZE[1]
    assert torch.equal(mixed[:, :, y0:y1, x0:x1], images[parameters.partner][:, :, y0:y1, x0:x1])
    assert torch.equal(images[:, 0, 0, 0], torch.arange(8.0))  # not in place


def test_how_often_and_how_much() -> None:
    mixing, random = Mixing("mixup", 1.0, 0.25, 4), np.random.default_rng(0)
    drawn_ = [mixing.draw(4, SIZE, random) for _ in range(2000)]
    shares = [parameters.share for parameters in drawn_ if parameters is not None]
    assert len(shares) / 2000 == pytest.approx(0.25, abs=0.04)
    assert np.mean(shares) == pytest.approx(0.5, abs=0.05)
    assert np.std(shares) == pytest.approx(12**-0.5, abs=0.03)  # Beta(1, 1) is uniform


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("blend", 1.0, 1.0, 4), "kind: expected one of mixup, cutmix, feature, got 'blend'"),
        (("mixup", 0.0, 1.0, 4), "alpha: expected a positive finite number, got 0.0"),
        (("mixup", 1.0, 1.5, 4), "probability: expected a number in"),
        (("mixup", 1.0, 1.0, 0), "chunk: expected at least 1 image, got 0"),
    ],
)
def test_refusals(arguments: tuple[str, float, float, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Mixing(*arguments)
