"""Batches of pairs of frames, a moment apart (CycAs)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ise_fast.data.sampler import PKSampler


class FramePairSampler(PKSampler):
    """The images of one frame, then those of another one of the same moment; then the next pair, until a batch is full.

    Of a frame come num_instances images at most, each once; the last pair of a batch may lack some. Moments are drawn
    at random, none twice before each was there; of a moment two different frames. No frame ends a pair and begins the
    next one, so wherever the frame changes, a set ends.

    The arguments are those of `PKSampler`, but that `labels` are moments and `cams` frames; the rule has no meaning
    here. Every moment has two frames or more.
    """

    across_labels: ClassVar[bool] = True

    @classmethod
    def lacking(cls, labels: NDArray[Any], batch_size: int, num_instances: int) -> str:
        if not (labels >= 0).any():
            return "no two frames, 2 needed for a pair"
        return "" if num_instances > 1 else "1 image of a frame, 2 needed to tell people apart"

    def batch(self, iteration: int) -> list[int]:
        """The indices of one batch."""
        rows = self.clusters_per_batch * self.num_instances
        random = np.random.default_rng((self.seed, self.epoch, iteration, 6))
        chosen: list[int] = []
        previous = -1
        while len(chosen) < rows:
            for moment in random.permutation(len(self._members)):
                room = rows - len(chosen)
                if room == 0:
                    break
                one, other = self._pair(self._members[moment], previous, random)
                one = one[: max(1, room // 2, room - len(other))]
                chosen += [int(index) for index in (*one, *other[: room - len(one)])]
                previous = self._frame(other[0])
        return chosen

    def _pair(
        self, members: NDArray[np.int64], previous: int, random: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        assert self._cams is not None
        frames = self._cams[members]
        first, second = random.choice(np.unique(frames), 2, replace=False)
        if first == previous:
            first, second = second, first
        one, other = (random.permutation(members[frames == frame])[: self.num_instances] for frame in (first, second))
        return one, other

    def _frame(self, index: int) -> int:
        assert self._cams is not None
        return int(self._cams[index])
