"""Further views of training images (CamStyle, SPGAN, DG-Net++ and the like make them), drawn in place of the images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ise_fast.data import ImageStore


class FurtherViews:
    """Which views each training image has.

    Features, labels and memory are those of the images themselves; a batch holds a view here and there.

    Args:
        store: v views.
        of: [v] int64, the training image of each.
        share: probability that an image with views is replaced by one of them.
    """

    def __init__(self, store: ImageStore, of: NDArray[np.int64], share: float) -> None:
        self.store = store
        self.share = share
        self.views: dict[int, list[int]] = {}
        for view, image in enumerate(of.tolist()):
            self.views.setdefault(image, []).append(view)

    def exchange(self, images: Tensor, indices: Sequence[int], share: slice, seed: int) -> Tensor:
        """A part of a batch with views in place of some images.

        Args:
            images: [B / processes, 3, h, w] uint8, the part; written to.
            indices: of the whole batch: what is drawn does not depend on the number of processes.
            share: which of them the part is.
            seed: of the batch.
        """
        draws = np.random.default_rng(seed).random((len(indices), 2))[share]
        rows, views = [], []
        for row, (index, (whether, which)) in enumerate(zip(indices[share], draws, strict=True)):
            candidates = self.views.get(index, [])
            if candidates and whether < self.share:
                rows.append(row)
                views.append(candidates[int(which * len(candidates))])
        if rows:
            images[rows] = self.store.batch(views).to(images.device)
        return images
