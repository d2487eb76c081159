"""Mixed images: mixup and CutMix of a batch, with parameters drawn in advance on the CPU."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

KINDS = ("mixup", "cutmix", "feature")


class MixParameters(NamedTuple):
    """Who is mixed with whom, and how."""

    partner: Tensor  # [B] int64, rows of the batch
    share: float  # of the image itself
    box: tuple[int, int, int, int] | None = None  # y0, x0, y1, x1 that come from the partner, ends excluded; None: all


class Mixing:
    """Draws which images of a batch are mixed: all of it or none, with one share.

    * mixup: share ~ Beta(alpha, alpha), every pixel is share x own + (1 - share) x partner's.
    * cutmix: a box of 1 - Beta(alpha, alpha) of the area, its centre uniform over the pixels, cut off at the border,
      comes from the partner; share is the area that is left.
    * feature: as mixup, and the images stay as they are: features are mixed later.

    The partners of the images of a chunk are a random permutation of it, so that a BatchNorm sees no more images than
    without, and several processes get the images of one.

    Args:
        kind: of the three.
        alpha: of the Beta distribution, above 0.
        probability: of a batch to be mixed, in [0, 1].
        chunk: images that are mixed among each other, in order; the last chunk may be smaller.

    Raises:
        ValueError: naming the argument.
    """

    def __init__(self, kind: str, alpha: float, probability: float, chunk: int) -> None:
        if kind not in KINDS:
            raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
        if not 0 < alpha < math.inf:
            raise ValueError(f"alpha: expected a positive finite number, got {alpha}")
        if not 0 <= probability <= 1:
            raise ValueError(f"probability: expected a number in [0, 1], got {probability}")
        if chunk < 1:
            raise ValueError(f"chunk: expected at least 1 image, got {chunk}")
        self.kind = kind
        self.alpha = alpha
        self.probability = probability
        self.chunk = chunk

    def draw(self, batch: int, size: tuple[int, int], random: np.random.Generator) -> MixParameters | None:
        """Parameters for `batch` images of `size` (height, width); None: this batch is not mixed."""
        if random.random() >= self.probability:
            return None
        share = float(random.beta(self.alpha, self.alpha))
        chunks = [start + random.permutation(min(self.chunk, batch - start)) for start in range(0, batch, self.chunk)]
        partner = torch.from_numpy(np.concatenate(chunks))
        if self.kind != "cutmix":
            return MixParameters(partner, share)
        (height, width), part = size, math.sqrt(1 - share)
        y, x, h, w = int(random.integers(height)), int(random.integers(width)), int(height * part), int(width * part)
        y0, x0 = max(0, y - h // 2), max(0, x - w // 2)
        y1, x1 = min(height, y - h // 2 + h), min(width, x - w // 2 + w)
        return MixParameters(partner, 1 - (y1 - y0) * (x1 - x0) / (height * width), (y0, x0, y1, x1))

    def apply(self, images: Tensor, parameters: MixParameters, start: int = 0) -> Tensor:
        """Mix images [b, 3, h, w] float32: those of the batch from `start` on, partners among them."""
        if self.kind == "feature":
            return images
        rows = parameters.partner[start : start + len(images)] - start
        partners = images[rows.to(images.device)]
        if parameters.box is None:
            return images * parameters.share + partners * (1 - parameters.share)
        y0, x0, y1, x1 = parameters.box
        mixed = images.clone()
        mixed[:, :, y0:y1, x0:x1] = partners[:, :, y0:y1, x0:x1]
        return mixed
