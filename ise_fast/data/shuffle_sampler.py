"""Batches of images in random order, whatever their clusters (BUC, MMCL, softened similarity)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ise_fast.data.sampler import PKSampler


class ShuffleSampler(PKSampler):
    """Passes over a random permutation of all labelled images; the last incomplete batch of a pass is left out.

    The arguments are those of `PKSampler`; cameras and the rule have no meaning here.
    """

    @classmethod
    def lacking(cls, labels: NDArray[Any], batch_size: int, num_instances: int) -> str:
        found = int((labels >= 0).sum())
        return "" if found >= batch_size else f"{found} labelled images, {batch_size} needed to fill a batch"

    def batch(self, iteration: int) -> list[int]:
        """The indices of one batch."""
        rows, drawn = self.clusters_per_batch * self.num_instances, np.concatenate(self._members)
        number, place = divmod(iteration, len(drawn) // rows)
        order = np.random.default_rng((self.seed, self.epoch, number, 4)).permutation(len(drawn))
        return [int(index) for index in np.sort(drawn)[order[place * rows : (place + 1) * rows]]]
