"""Batch augmentation against a picture-by-picture reference, its distribution, and determinism."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ise_fast.data import AugmentParameters, BatchAugment, normalize
from ise_fast.data.transforms import IMAGENET_MEAN, IMAGENET_STD


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(batch: int = 16, height: int = 24, width: int = 12) -> Tensor:
    return torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8, generator=generator(9))


def one_by_one(batch: Tensor, parameters: AugmentParameters, pad: int) -> Tensor:
    """The recipe in the words of the papers: flip, pad, crop, normalise, erase."""
    results = []
    for image, flip, (y, x), (y0, x0, y1, x1) in zip(batch.numpy(), *(p.tolist() for p in parameters), strict=True):
        picture = image[:, :, ::-1] if flip else image
        _, height, width = picture.shape
        picture = np.pad(picture, ((0, 0), (pad, pad), (pad, pad)))[:, y : y + height, x : x + width] / 255
        result = (picture - np.reshape(IMAGENET_MEAN, (3, 1, 1))) / np.reshape(IMAGENET_STD, (3, 1, 1))
        result[:, y0:y1, x0:x1] = np.reshape(IMAGENET_MEAN, (3, 1, 1))
        results.append(result)
    return torch.from_numpy(np.stack(results))


@pytest.mark.parametrize("pad", [0, 1, 10])
@pytest.mark.parametrize("size", [(24, 12), (9, 31), (64, 32)])
def test_a_batch_equals_its_images_done_one_by_one(pad: int, size: tuple[int, int], device: torch.device) -> None:
    batch = images(16, *size)
    augment = BatchAugment(pad=pad)
    parameters = augment.draw(16, size, generator(pad))
    assert parameters.flip.any()
    assert (parameters.erase[:, 2] > 0).any()
    result = augment.apply(batch.to(device), parameters)
    assert result.dtype == torch.float32
    assert (result.cpu() - one_by_one(batch, parameters, pad)).abs().max() < 2e-6


def test_evaluation_only_normalises(device: torch.device) -> None:
    batch = images()
    still = AugmentParameters(
        torch.zeros(16, dtype=torch.bool), torch.zeros(16, 2, dtype=torch.int64), torch.zeros(16, 4, dtype=torch.int64)
    )
    assert (normalize(batch.to(device)).cpu() - one_by_one(batch, still, 0)).abs().max() < 2e-6


def test_parameters_are_distributed_as_published() -> None:
    n, height, width = 20_000, 256, 128
    flip, offset, erase = BatchAugment().draw(n, (height, width), generator())
    assert abs(flip.float().mean() - 0.5) < 0.02
    assert [int(offset.min()), int(offset.max())] == [0, 20]
    counts = torch.bincount(offset.flatten(), minlength=21) / (2 * n)
    assert (counts - 1 / 21).abs().max() < 0.004

    y0, x0, y1, x1 = erase[erase[:, 2] > 0].unbind(dim=1)
    assert abs(len(y0) / n - 0.5) < 0.02
    h, w = (y1 - y0).double(), (x1 - x0).double()
    area = h * w / (height * width)
    ratio = h / w
    assert 0.0195 < area.min() < 0.022  # rounding to pixels moves the ends a little
    assert 0.37 < area.max() < 0.405
    assert 0.29 < ratio.min() < 0.33
    assert 3.2 < ratio.max() < 3.45
    assert (y0 >= 0).all()
    assert (x0 >= 0).all()
    assert (y1 <= height).all()
    assert (x1 <= width).all()
    assert (y1 == height).any()  # every place is possible
    assert (x1 == width).any()


def test_erasing_draws_area_and_ratio_as_a_loop_with_rejection_does() -> None:
    random = np.random.default_rng(0)
    expected = []
    while len(expected) < 4_000:
        area, ratio = 256 * 128 * random.uniform(0.02, 0.4), random.uniform(0.3, 1 / 0.3)
        h, w = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
        if h < 256 and w < 128:
            expected.append((h, w))
    erase = BatchAugment(erase=1.0).draw(4_000, (256, 128), generator()).erase
    got = torch.stack([erase[:, 2] - erase[:, 0], erase[:, 3] - erase[:, 1]], dim=1).double()
    wanted = torch.tensor(expected, dtype=torch.float64)
    quantiles = torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9], dtype=torch.float64)
    assert (got.quantile(quantiles, dim=0) - wanted.quantile(quantiles, dim=0)).abs().max() < 5


def test_state_of_the_generator_is_all_there_is() -> None:
    augment, batch, source = BatchAugment(pad=2), images(), generator(4)
    augment(batch, source)
    state = source.get_state()
    second = augment(batch, source)
    assert not torch.equal(second, augment(batch, source))
    resumed = generator(0)
    resumed.set_state(state)
    assert torch.equal(second, augment(batch, resumed))


def test_parts_of_a_batch_give_the_whole() -> None:
    augment, batch = BatchAugment(pad=2), images()
    parameters = augment.draw(16, (24, 12), generator())
    parts = [augment.apply(batch[s : s + 8], parameters.slice(s, s + 8)) for s in (0, 8)]
    assert torch.equal(torch.cat(parts), augment.apply(batch, parameters))


def test_everything_can_be_switched_off() -> None:
    batch = images()
    assert torch.equal(BatchAugment(flip=0, pad=0, erase=0)(batch, generator()), normalize(batch))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flip": 1.5}, "flip: expected a probability"),
        ({"erase": -0.1}, "erase: expected a probability"),
        ({"pad": -1}, "pad: expected 0 or more"),
        ({"area": (0.5, 0.2)}, "area"),
        ({"ratio": 0.0}, "ratio"),
    ],
)
def test_wrong_options_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BatchAugment(**options)


def test_wrong_images_are_named() -> None:
    with pytest.raises(TypeError, match=r"images: expected uint8, got torch\.float32"):
        normalize(images().float())
    with pytest.raises(ValueError, match=r"images: expected shape \[B, 3, h, w\], got \[16, 2, 24, 12\]"):
        BatchAugment()(images()[:, :2], generator())
    with pytest.raises(ValueError, match="parameters: expected those of 16 images, got 8"):
        BatchAugment().apply(images(), BatchAugment().draw(8, (24, 12), generator()))
