"""Augmentation of whole batches on the device that holds them, with parameters drawn in advance on the CPU.

The published recipe per image (docs/recipe.md: flip, pad 10 and random crop, normalise, random erasing), done for a
batch by one gather and one select. The parameters come from a CPU generator, so that a run is the same on CPU and GPU
and can be resumed by saving the generator's state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
ERASE_ATTEMPTS = 16  # a rectangle of the published areas and ratios fits 256 x 128 in 3 of 4 attempts


def normalize(images: Tensor) -> Tensor:
    """uint8 images -> float32, ImageNet mean and standard deviation; all that evaluation does.

    Shape: [B, 3, h, w] uint8 -> [B, 3, h, w] float32, same device.

    Raises:
        ValueError, TypeError: if images are not [B, 3, h, w] uint8.
    """
    _check(images)
    scale, shift = _affine(images.device)
    return images.to(torch.float32).mul_(scale).add_(shift)


class AugmentParameters(NamedTuple):
    """What happens to each image of a batch; `slice` for a process that augments its part of the batch only."""

    flip: Tensor  # [B] bool
    offset: Tensor  # [B, 2] int64: corner (y, x) of the crop in the padded image
    erase: Tensor  # [B, 4] int64: rectangle y0, x0, y1, x1 in the result, ends excluded; empty: nothing erased

    def slice(self, start: int, stop: int) -> AugmentParameters:
        return AugmentParameters(*(field[start:stop] for field in self))


class BatchAugment:
    """Flip, pad and crop, normalise, erase: `augment(images, generator)`, or `draw` and `apply` one after the other.

    Args:
        flip: probability of a mirrored image (0 where left and right matter, as in handwriting).
        pad: black border in pixels before a crop of the original size; 10 is meant for 256 x 128.
        erase: probability that a rectangle is overwritten.
        area: smallest and largest part of the image that is erased.
        ratio: smallest height / width of the rectangle; the largest is 1 / ratio.
        erase_value: written in place of erased pixels, per channel, in units of the *normalised* image. The default is
            what the programs of this family write: the ImageNet mean, after normalisation.

    Raises:
        ValueError: for a probability outside [0, 1], a negative pad, or an impossible area or ratio.
    """

    def __init__(
        self,
        *,
        flip: float = 0.5,
        pad: int = 10,
        erase: float = 0.5,
        area: tuple[float, float] = (0.02, 0.4),
        ratio: float = 0.3,
        erase_value: tuple[float, float, float] = IMAGENET_MEAN,
    ) -> None:
        for name, probability in (("flip", flip), ("erase", erase)):
            if not 0 <= probability <= 1:
                raise ValueError(f"{name}: expected a probability in [0, 1], got {probability}")
        if pad < 0:
            raise ValueError(f"pad: expected 0 or more pixels, got {pad}")
        if not 0 < area[0] <= area[1] <= 1:
            raise ValueError(f"area: expected 0 < smallest <= largest <= 1, got {area}")
        if not 0 < ratio <= 1:
            raise ValueError(f"ratio: expected a smallest height / width in (0, 1], got {ratio}")
        self.flip = flip
        self.pad = pad
        self.erase = erase
        self.area = area
        self.ratio = ratio
        self.erase_value = erase_value

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Augment and normalise a batch: [B, 3, h, w] uint8 -> float32 on the same device."""
        _check(images)
        batch, _, height, width = images.shape
        return self.apply(images, self.draw(batch, (height, width), generator))

    def draw(self, batch: int, size: tuple[int, int], generator: torch.Generator) -> AugmentParameters:
        """Parameters for `batch` images of `size` (height, width), from a CPU generator."""
        flip = torch.rand(batch, generator=generator) < self.flip
        offset = torch.randint(0, 2 * self.pad + 1, (batch, 2), generator=generator)
        return AugmentParameters(flip, offset, self._draw_rectangles(batch, size, generator))

    def _draw_rectangles(self, batch: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
        height, width = size
        wanted = torch.rand(batch, generator=generator) < self.erase
        # Several attempts for every image at once; the first that fits counts, as in the loop this stands for.
        u = torch.rand(4, batch, ERASE_ATTEMPTS, generator=generator, dtype=torch.float64)
        area = height * width * (self.area[0] + (self.area[1] - self.area[0]) * u[0])
        ratio = self.ratio + (1 / self.ratio - self.ratio) * u[1]
        h = (area * ratio).sqrt().round().long()
        w = (area / ratio).sqrt().round().long()
        fits = (h < height) & (w < width) & (h > 0) & (w > 0)
        first = fits.to(torch.uint8).argmax(dim=1, keepdim=True)
        h, w, uy, ux = (value.gather(1, first).squeeze(1) for value in (h, w, u[2], u[3]))
        y = (uy * (height - h + 1)).floor().long()
        x = (ux * (width - w + 1)).floor().long()
        erased = torch.stack([y, x, y + h, x + w], dim=1)
        return torch.where((wanted & fits.any(dim=1))[:, None], erased, 0)

    def apply(
        self, images: Tensor, parameters: AugmentParameters, mix: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """Augment and normalise with given parameters: [B, 3, h, w] uint8 -> float32 on the same device.

        Args:
            images: the batch.
            parameters: of each image.
            mix: what happens to the normalised images before parts are erased.
        """
        _check(images)
        batch, channels, height, width = images.shape
        if len(parameters.flip) != batch:
            raise ValueError(f"parameters: expected those of {batch} images, got {len(parameters.flip)}")
        device = images.device
        flip, offset, erase = (field.to(device, non_blocking=True) for field in parameters)
        y = torch.arange(height, device=device)
        x = torch.arange(width, device=device)

        padded_width = width + 2 * self.pad
        rows = y + offset[:, :1]  # [B, h] in the padded image
        columns = x + offset[:, 1:]  # [B, w]
        # The image is mirrored before it is padded and cropped; mirroring the padded image is the same.
        columns = torch.where(flip[:, None], padded_width - 1 - columns, columns)
        source = (rows[:, :, None] * padded_width + columns[:, None, :]).view(batch, 1, height * width)
        padded = F.pad(images, (self.pad,) * 4).view(batch, channels, -1)
        cropped = padded.gather(2, source.expand(-1, channels, -1)).view(batch, channels, height, width)

        y0, x0, y1, x1 = (edge[:, None] for edge in erase.unbind(dim=1))
        inside = ((y >= y0) & (y < y1))[:, None, :, None] & ((x >= x0) & (x < x1))[:, None, None, :]
        value = torch.tensor(self.erase_value, device=device).view(1, 3, 1, 1)
        normalised = normalize(cropped)
        return torch.where(inside, value, normalised if mix is None else mix(normalised))


def _affine(device: torch.device) -> tuple[Tensor, Tensor]:
    """x / 255 normalised = x * scale + shift."""
    scale = [1 / (255 * std) for std in IMAGENET_STD]
    shift = [-mean / std for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)]
    return torch.tensor(scale, device=device).view(1, 3, 1, 1), torch.tensor(shift, device=device).view(1, 3, 1, 1)


def _check(images: Tensor) -> None:
    if images.dtype != torch.uint8:
        raise TypeError(f"images: expected uint8, got {images.dtype}")
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images: expected shape [B, 3, h, w], got {list(images.shape)}")
