"""The decoded images of a run: those to train with, and queries and gallery."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL.Image import DecompressionBombWarning

from ise_fast._progress import stage
from ise_fast.data import DatasetError, ImageStore, ReIDDataset, Split, open_images
from ise_fast.engine.config import DataConfig
from ise_fast.engine.distributed import World
from ise_fast.engine.errors import UsageError
from ise_fast.engine.evaluator import evaluate
from ise_fast.engine.features import FeatureExtractor
from ise_fast.engine.image_list import require_same_choice, sign
from ise_fast.engine.run_dataset import image_size, require_matches
from ise_fast.engine.views import FurtherViews

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RetrievalImages:
    """Queries and gallery with their identities: a run meets identities only here, and only to print figures."""

    query: Split
    gallery: Split
    query_images: ImageStore
    gallery_images: ImageStore

    def extract(
        self, extract: FeatureExtractor, world: World, *, progress: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Features of queries and of gallery, with a bar if `progress`; every process must call it."""
        shares = [world.share(len(store)) for store in (self.query_images, self.gallery_images)]
        count = sum(share.stop - share.start for share in shares)
        with stage(count, "extract test images", "img", bar=progress and world.is_main) as watched:
            return extract(self.query_images, watched.update), extract(self.gallery_images, watched.update)

    def evaluator(
        self, extract: FeatureExtractor, world: World, *, rerank: bool = False, progress: bool = False
    ) -> Callable[[], dict[str, float]]:
        """A function without arguments that measures the network of `extract`; every process must call it."""

        def measure() -> dict[str, float]:
            query, gallery = self.extract(extract, world, progress=progress)
            return world.on_main(lambda: evaluate(query, gallery, self.query, self.gallery, rerank=rerank).as_dict())

        return measure


@dataclass(frozen=True)
class TrainingImages:
    """Images, cameras, tracklets, frames, no identities; [n, 8] bytes that tell one image from another anywhere."""

    images: ImageStore
    cams: np.ndarray[Any, np.dtype[np.int64]] | None
    signature: torch.Tensor
    tracklets: np.ndarray[Any, np.dtype[np.int64]] | None = None
    views: FurtherViews | None = None
    frames: np.ndarray[Any, np.dtype[np.int64]] | None = None


def open_training_images(
    config: DataConfig, dataset: ReIDDataset, world: World, *, progress: bool = False
) -> TrainingImages:
    """Decode the training images.

    Raises:
        UsageError: for an unreadable image (unless they are skipped), or none at all.
    """
    split = dataset.training_images
    store = _open(split.paths, config, dataset, world, progress)
    kept = split.take(store.kept)
    signature = sign(dataset.root, store.paths, kept.cams, world, config.workers)
    views = None
    if kept.views is not None and len(kept.views.paths) and config.view_share > 0:
        pictures = _open(kept.views.paths, config, dataset, world, progress)
        views = FurtherViews(pictures, kept.views.of[pictures.kept], config.view_share)
        log.info("%d further views of the training images", len(pictures))
    return TrainingImages(store, kept.cams, signature, kept.tracklets, views, kept.frames)


def open_test_images(
    config: DataConfig, dataset: ReIDDataset, world: World, *, progress: bool = False
) -> RetrievalImages | None:
    """Decode queries and gallery; None if the data set has none with identities.

    Raises:
        UsageError: for an unreadable image (unless they are skipped), or none at all, or none left with a match.
    """
    if not dataset.can_evaluate:
        return None
    query, gallery = (
        _open(split.paths, config, dataset, world, progress) for split in (dataset.query, dataset.gallery)
    )
    queries, entries = dataset.query.take(query.kept), dataset.gallery.take(gallery.kept)
    if query.skipped or gallery.skipped:
        require_matches(queries, entries)
    return RetrievalImages(queries, entries, query, gallery)


def _open(
    paths: tuple[Path, ...], config: DataConfig, dataset: ReIDDataset, world: World, progress: bool
) -> ImageStore:
    store = world.together(lambda: _open_here(paths, config, dataset, world, progress))
    require_same_choice(store.kept, world)
    _move_to_device(store, world)
    return store


def _open_here(
    paths: tuple[Path, ...], config: DataConfig, dataset: ReIDDataset, world: World, progress: bool
) -> ImageStore:
    size = image_size(config, dataset)
    kind = config.cache if config.cache != "auto" else ("disk" if world.size > 1 else "memory")
    cache_dir = (config.cache_dir or _default_cache()) if kind == "disk" else None
    on_error: Literal["raise", "skip"] = "skip" if config.unreadable == "skip" else "raise"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DecompressionBombWarning)  # such an image is an error, in one line
            store = open_images(
                paths, size, kind, max(1, config.workers), on_error,
                cache_dir=cache_dir, progress=progress and world.is_main,
            )  # fmt: skip
    except DatasetError as error:
        hint = " (--unreadable skip leaves such images out)" if on_error == "raise" else ""
        raise UsageError(f"{error}{hint}") from error
    except MemoryError as error:
        raise UsageError(f"--height, --width: {len(paths)} images of {size[0]} x {size[1]}: out of memory") from error
    except OSError as error:
        raise UsageError(f"--cache-dir: the decoded images cannot be written: {error}") from error
    for path, reason in store.skipped[:5]:
        log.warning("skipped %s: %s", path, reason)
    if store.skipped:
        log.warning("%d of %d images cannot be read and are left out", len(store.skipped), len(paths))
    return store


def _default_cache() -> Path:
    try:
        return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "ise_fast"
    except RuntimeError as error:
        raise UsageError("--cache-dir: expected a folder, because this user has no home folder") from error


def _move_to_device(store: ImageStore, world: World) -> None:
    """Keep the decoded images on the GPU if they take less than a quarter of its free memory."""
    if world.device.type != "cuda" or store.images is None:
        return
    free, _ = torch.cuda.mem_get_info(world.device)
    if store.images.numel() < free // 4:
        store.images = store.images.to(world.device)
