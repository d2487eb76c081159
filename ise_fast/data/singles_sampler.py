"""Batches of K images of a cluster in which an image that stands alone comes once (SpCL's sampler)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ise_fast.data.sampler import PKSampler


class SinglesSampler(PKSampler):
    """Clusters in random order, K images of each and one of a cluster of one image, cut every `batch_size` entries.

    The images of a cluster are drawn as by `PKSampler`, whose arguments these are. A batch may begin or end inside a
    cluster; the last incomplete batch of a pass over the clusters is left out, and the next pass has another order.
    """

    _pass: tuple[tuple[int, int], NDArray[np.int64]] | None = None  # (epoch, number) and its entries

    @classmethod
    def lacking(cls, labels: NDArray[Any], batch_size: int, num_instances: int) -> str:
        sizes = np.unique(labels[labels >= 0], return_counts=True)[1]
        clusters, singles = int((sizes > 1).sum()), int((sizes == 1).sum())
        entries = clusters * num_instances + singles
        have = f"{clusters} clusters and {singles} single images give {entries} rows"
        return "" if entries >= batch_size else f"{have}, {batch_size} needed to fill a batch"

    def batch(self, iteration: int) -> list[int]:
        """The indices of one batch."""
        rows = self.clusters_per_batch * self.num_instances
        entries = sum(1 if len(members) == 1 else self.num_instances for members in self._members)
        number, place = divmod(iteration, entries // rows)
        return [int(index) for index in self._entries(number)[place * rows : (place + 1) * rows]]

    def _entries(self, number: int) -> NDArray[np.int64]:
        """All entries of a pass, which follow from seed, epoch and number."""
        key = (self.epoch, number)
        if self._pass is None or self._pass[0] != key:
            random = np.random.default_rng((self.seed, self.epoch, number, 2))
            draw = self._draw_published if self.rule == "published" else self._draw_balanced
            groups = [
                self._members[c] if len(self._members[c]) == 1 else draw(self._members[c], random)
                for c in random.permutation(len(self._members))
            ]
            self._pass = key, np.concatenate(groups)
        return self._pass[1]
