"""Training batches: P x K images of pseudo labels, augmented; each a function of (seed, epoch, iteration) alone."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ise_fast.data import BatchAugment, ImageStore, Mixing, MixParameters, PKSampler
from ise_fast.data.transforms import AugmentParameters
from ise_fast.engine.distributed import World
from ise_fast.engine.loader import prefetch
from ise_fast.engine.views import FurtherViews
from ise_fast.methods import Batch, Mix


class _Loaded(NamedTuple):
    images: Tensor  # uint8, or augmented float32 where the thread has done all
    parameters: AugmentParameters | None
    mix: MixParameters | None
    batch: Batch  # on the CPU


class TrainingBatches:
    """Iterates over the batches of an epoch, loading ahead in a thread.

    Nothing here has a state that a resume could lose: the sampler and the augmentation draw from generators seeded by
    (seed, epoch, iteration). Processes draw the parameters of the whole batch and use their own part, so that the
    images do not depend on the number of processes.

    Args:
        store: n training images.
        sampler: at the epoch to be run.
        labels: [n] int64 pseudo labels.
        cams: [n] int64 cameras, or None.
        augment: draws and applies the augmentation.
        mixing: draws and applies mixtures of images, or None.
        world: this process among its peers.
        channels_last: memory format of the batches.
        views: further views of the images, or None.
    """

    def __init__(
        self,
        store: ImageStore,
        sampler: PKSampler,
        labels: Tensor,
        cams: Tensor | None,
        augment: BatchAugment,
        mixing: Mixing | None,
        world: World,
        *,
        channels_last: bool = False,
        views: FurtherViews | None = None,
    ) -> None:
        self.store = store
        self.sampler = sampler
        self.labels = labels
        self.cams = cams
        self.augment = augment
        self.mixing = mixing
        self.world = world
        self.views = views
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format

    def iterate(self, start: int) -> Generator[tuple[Tensor, Batch], None, None]:
        """Batches from `start` on: this process' images [B / processes, 3, h, w] float32, and the batch of all."""
        loaded = prefetch(self._load, range(start, len(self.sampler)))
        try:
            for item in loaded:
                images = item.images.to(self.world.device, non_blocking=True)
                if item.parameters is not None:
                    images = self._augment(images, item.parameters, item.mix)
                yield images, item.batch.each(lambda rows: rows.to(self.world.device, non_blocking=True))
        finally:
            loaded.close()

    def _load(self, iteration: int) -> _Loaded:
        """In the thread: gather the images; on a CPU augment them too, on a GPU leave that to the GPU."""
        indices = self.sampler.batch(iteration)
        share = self.world.share(len(indices))
        images = self.store.batch(indices[share])
        epoch, seed = self.sampler.epoch, self.sampler.seed
        if self.views is not None:
            images = self.views.exchange(images, indices, share, _mix(seed, epoch, iteration, 2))
        generator = torch.Generator().manual_seed(_mix(seed, epoch, iteration))
        parameters = self.augment.draw(len(indices), self.store.size, generator).slice(share.start, share.stop)
        mix = None
        if self.mixing is not None:
            random = np.random.default_rng((seed, epoch, iteration, 5))
            mix = self.mixing.draw(len(indices), self.store.size, random)
        batch = self._describe(torch.as_tensor(indices), mix, _mix(seed, epoch, iteration, 1))
        if self.world.device.type == "cpu":
            return _Loaded(self._augment(images, parameters, mix), None, None, batch)
        if images.device.type == "cpu":
            images = images.pin_memory()
        return _Loaded(images, parameters, mix, batch.each(Tensor.pin_memory))

    def _describe(self, index: Tensor, mix: MixParameters | None, seed: int) -> Batch:
        """What the objective gets beside features."""
        mixed = None
        if mix is not None and self.mixing is not None:
            mixed = Mix(mix.partner, mix.share, self.mixing.kind == "feature")
        cams = None if self.cams is None else self.cams[index]
        return Batch(index, self.labels[index], cams, self.sampler.epoch, mixed, seed)

    def _augment(self, images: Tensor, parameters: AugmentParameters, mix: MixParameters | None) -> Tensor:
        start = self.world.share(self.sampler.clusters_per_batch * self.sampler.num_instances).start
        apply = None
        if mix is not None and self.mixing is not None:
            apply = partial(self.mixing.apply, parameters=mix, start=start)
        return self.augment.apply(images, parameters, apply).contiguous(memory_format=self.memory_format)


def _mix(*words: int) -> int:
    """One 64-bit seed from several numbers, without the collisions of sums and products of small ones."""
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0])
