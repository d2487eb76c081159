"""Embeddings of a list of images: evaluation mode, no augmentation, every process its share of the images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ise_fast.data import ImageStore, normalize
from ise_fast.engine.distributed import World
from ise_fast.engine.errors import NonFiniteError
from ise_fast.engine.loader import prefetch
from ise_fast.engine.precision import Precision


class FeatureExtractor:
    """Extracts unit-length features with a given network.

    Args:
        model: images [B, 3, h, w] float32 -> [B, d] unit rows.
        world: this process among its peers.
        precision: arithmetic of the forward pass.
        batch_size: images in a batch, per process.
        channels_last: memory format of the batches.
        before_batch: called before each batch; may raise to end the extraction (an interrupt).

    Raises:
        ValueError: for a batch of no image.
    """

    def __init__(
        self,
        model: nn.Module,
        world: World,
        precision: Precision,
        batch_size: int,
        *,
        channels_last: bool = False,
        before_batch: Callable[[], None] = lambda: None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
        self.model = model
        self.world = world
        self.precision = precision
        self.batch_size = batch_size
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.before_batch = before_batch

    def __call__(
        self, store: ImageStore, on_batch: Callable[[int], object] = lambda images: None, *, with_parts: bool = False
    ) -> Tensor:
        """Features of every image of the store, on every process.

        Args:
            store: n images.
            on_batch: told after each batch how many images of this process are done.
            with_parts: also those of the parts of each image, behind those of the whole (`EmbeddingNet.gives_parts`).

        Returns:
            [n, d] float32 unit rows on the device of the process; [n, (1 + parts) d] with parts.
        """
        return self.world.concatenate(self.own(store, on_batch, with_parts=with_parts), len(store))

    def own(
        self, store: ImageStore, on_batch: Callable[[int], object] = lambda images: None, *, with_parts: bool = False
    ) -> Tensor:
        """The same of the images that fall to this process alone; [0, 0] where none do."""
        share = self.world.share(len(store))
        starts = range(share.start, share.stop, self.batch_size)
        pinned = self.world.device.type == "cuda" and (store.images is None or store.images.device.type == "cpu")

        def load(start: int) -> Tensor:
            images = store.batch(range(start, min(start + self.batch_size, share.stop)))
            return images.pin_memory() if pinned else images

        self.world.synchronise_buffers(self.model)
        was_training = self.model.training
        gave_parts = getattr(self.model, "gives_parts", False)
        self.model.eval()
        if gave_parts:  # only then is there such a switch
            self.model.gives_parts = with_parts  # type: ignore[assignment]
        parts = []
        batches = prefetch(load, starts)
        try:
            for images in batches:
                self.before_batch()
                parts.append(self._forward(images))
                on_batch(images.shape[0])
        finally:
            batches.close()
            self.model.train(was_training)
            if gave_parts:
                self.model.gives_parts = True  # type: ignore[assignment]
        width = parts[0].shape[1] if parts else 0
        return torch.cat(parts) if parts else torch.empty((0, width), device=self.world.device)

    @torch.no_grad()
    def _forward(self, images: Tensor) -> Tensor:
        batch = normalize(images.to(self.world.device, non_blocking=True)).contiguous(memory_format=self.memory_format)
        with self.precision.autocast():
            features: Tensor = self.model(batch)
        return features.float()


def check_features(features: Tensor, what: str) -> None:
    """Stop at the first features that are not finite.

    Raises:
        NonFiniteError: naming `what` and the rows.
    """
    finite = torch.isfinite(features).all(dim=1)
    if not bool(finite.all()):
        bad = torch.nonzero(~finite).flatten()
        raise NonFiniteError(
            f"{what}: {bad.numel()} of {features.shape[0]} rows hold NaN or infinity, the first is row {int(bad[0])}; "
            "lower --lr, set --clip-grad 1, or use --precision fp32"
        )
