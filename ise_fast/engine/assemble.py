"""From settings to the parts of a run: images, network, optimiser, criterion, and the trainer that holds them."""

from __future__ import annotations

import dataclasses
import logging
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL.Image import DecompressionBombWarning
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ise_fast._progress import stage
from ise_fast.data import (
    DatasetError,
    DatasetWarning,
    ImageStore,
    ReIDDataset,
    Split,
    UnlabelledSplit,
    load_dataset,
    open_images,
)
from ise_fast.engine.checkpoint import seed_everything
from ise_fast.engine.config import DataConfig, ModelConfig, TrainConfig
from ise_fast.engine.distributed import World
from ise_fast.engine.errors import UsageError
from ise_fast.engine.evaluator import evaluate, has_match
from ise_fast.engine.features import FeatureExtractor
from ise_fast.engine.image_list import require_same_choice, require_same_dataset, sign
from ise_fast.engine.precision import Precision
from ise_fast.engine.state import TrainState
from ise_fast.engine.step import TrainStep
from ise_fast.methods import Labeller, Method, Objective, find_labels, find_method, read_settings
from ise_fast.models import EmbeddingNet, build_model
from ise_fast.nn import convert_ghost_batch_norm

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
    """Images and cameras, without identities, and [n, 8] bytes that tell one image from another, wherever it lies."""

    images: ImageStore
    cams: np.ndarray[Any, np.dtype[np.int64]] | None
    signature: torch.Tensor


def open_dataset(config: DataConfig, world: World) -> ReIDDataset:
    """Find the data set, or generate the synthetic one; every process must call it.

    Raises:
        UsageError: on every process, if it is missing, empty or laid out in another way, or not the same for all.
    """
    dataset = world.together(lambda: _load_dataset(config))
    require_same_dataset(dataset, world)
    return dataset


def _load_dataset(config: DataConfig) -> ReIDDataset:
    options: dict[str, Any] = {}
    if config.dataset == "folder":
        options = {"pattern": config.identity_pattern, "csv": config.labels_csv}
        options = {name: value for name, value in options.items() if value is not None}
    else:
        for name in ("identity_pattern", "labels_csv"):
            if getattr(config, name) is not None:
                log.warning("--%s is ignored: only --dataset folder takes it", name.replace("_", "-"))
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", DatasetWarning)
            dataset = load_dataset(config.dataset, config.data_dir or "data", **options)
    except (DatasetError, OSError) as error:
        raise UsageError(str(error)) from error
    for warning in caught:
        log.warning("%s", warning.message)
    return dataset


def check_test_images(dataset: ReIDDataset, eval_step: int | None = None) -> ReIDDataset:
    """The data set, if its queries can be evaluated or it has none; a look at its labels, before images are decoded.

    Args:
        dataset: with or without test images.
        eval_step: of training; with 0, test images without a match are taken out instead of being an error.

    Raises:
        UsageError: no query has a match in the gallery.
    """
    query, gallery = dataset.query, dataset.gallery
    if not dataset.can_evaluate:
        if len(query) and len(gallery):
            side = "queries" if query.ids is None else "gallery"
            log.warning("no identity is known for the %s: nothing can be evaluated", side)
        return dataset
    if (query.cams is None) != (gallery.cams is None):
        side = "gallery" if query.cams is None else "queries"
        log.warning("cameras are known for the %s alone and are not used: any gallery image may be a match", side)
    try:
        _require_matches(query, gallery)
    except UsageError as error:
        if eval_step is None:
            raise
        if eval_step:
            raise UsageError(f"{error}; or train without evaluation: --eval-step 0") from None
        log.warning("%s", error)
        none = np.array([], dtype=np.int64)
        return dataset.take(query=none, gallery=none)
    return dataset


def _require_matches(query: Split, gallery: Split) -> None:
    matched = has_match(query, gallery)
    count, total = int(matched.sum()), len(matched)
    if 0 < count < total:
        log.warning("%d of %d queries have no match in the gallery and are not counted", total - count, total)
    if count:
        return
    if bool(has_match(replace(query, cams=None), gallery).any()):
        why = "every match was taken by the query's own camera, and such matches do not count"
        remedy = "leave the camera out of --identity-pattern or --labels-csv to count them"
    else:
        why = "no query's identity is in the gallery"
        remedy = "give the same thing the same identity on both sides"
    raise UsageError(f"--dataset: none of {total} queries has a match in the gallery: {why}; {remedy}")


def image_size(config: DataConfig, dataset: ReIDDataset) -> tuple[int, int]:
    """Height and width that images get."""
    return config.height or dataset.image_size[0], config.width or dataset.image_size[1]


def with_image_size(config: TrainConfig, dataset: ReIDDataset) -> TrainConfig:
    """The settings with the size that images really get, so that a checkpoint tells it."""
    height, width = image_size(config.data, dataset)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, height=height, width=width))


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
    return TrainingImages(store, kept.cams, signature)


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
        _require_matches(queries, entries)
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


def build_network(config: ModelConfig, *, weights: bool = True) -> EmbeddingNet:
    """The embedding network, on the CPU.

    Args:
        config: architecture, pooling, embedding size.
        weights: load the pretrained weights; False where a checkpoint follows.

    Raises:
        UsageError: an unknown architecture, or a weight file that is missing or does not fit.
    """
    try:
        return build_model(
            config.arch,
            pretrained=config.pretrained if weights else "none",
            pooling=config.pooling_type,
            num_features=config.features,
        )
    except (ValueError, FileNotFoundError, ImportError) as error:
        raise UsageError(str(error)) from error


# Settings that say where a process finds and puts things, and may therefore differ between processes.
_LOCAL = {"data_dir", "labels_csv", "workers", "cache", "cache_dir", "logs_dir", "resume", "device"}
_LOCAL |= {"progress", "quiet"}


def require_same_settings(config: TrainConfig, world: World) -> None:
    """All processes were started with the same settings.

    Raises:
        UsageError: on every process, naming the first flag that differs.
    """
    settings = world.gather_objects({k: v for k, v in config.flat().items() if k not in _LOCAL})
    for rank, other in enumerate(settings):
        for name, value in other.items():
            if value != settings[0][name]:
                raise UsageError(
                    f"--{name.replace('_', '-')}: expected the same in all processes, got {settings[0][name]} in "
                    f"process 0 and {value} in process {rank}"
                )


@dataclass(frozen=True)
class Plan:
    """The method of a run with its settings, and what labels its images. The memory waits for the network's width."""

    method: Method
    settings: Any
    labeller: Labeller
    objective: Objective[Any]


def make_plan(config: TrainConfig) -> Plan:
    """The parts of a method that need no network.

    Raises:
        UsageError: a setting that the method refuses.
    """
    flat = config.flat()
    try:
        method = find_method(config.plan.method)
        source = find_labels(config.plan.labels or method.labels)
        settings = read_settings(method.settings, flat)
        labeller = source.make(read_settings(source.settings, flat), config.run.seed)
        return Plan(method, settings, labeller, method.objective(settings))
    except ValueError as error:
        raise UsageError(str(error)) from error


def check_plan(config: TrainConfig, plan: Plan, split: UnlabelledSplit) -> None:
    """What the method needs of the training images, before they are decoded.

    Raises:
        UsageError: naming the flag.
    """
    if plan.method.needs_cameras and split.cams is None:
        raise UsageError(f"--method: {config.plan.method} needs the cameras of the training images, and none are known")
    _check_counts(config, plan, len(split.paths))


def _check_counts(config: TrainConfig, plan: Plan, images: int) -> None:
    try:
        plan.labeller.check(images)
        plan.objective.check(images)
    except ValueError as error:
        raise UsageError(str(error)) from None
    optim = config.optim
    if optim.batch_size // optim.num_instances > images:
        raise UsageError(
            f"--batch-size: expected at most {images} clusters in a batch, as many as training images, got "
            f"{optim.batch_size // optim.num_instances}"
        )


def check_sizes(config: TrainConfig, plan: Plan, images: int, world: World) -> None:
    """What can be known to be impossible before anything is written.

    Raises:
        UsageError: naming the flag and the remedy.
    """
    _check_counts(config, plan, images)
    optim = config.optim
    if optim.batch_size % world.size:
        raise UsageError(f"--batch-size: expected a multiple of the {world.size} processes, got {optim.batch_size}")
    local, chunk = optim.batch_size // world.size, config.model.bn_chunk
    if local < 2:
        raise UsageError(
            f"--batch-size: expected at least 2 images in each of the {world.size} processes, got {optim.batch_size}"
        )
    if chunk and local > chunk and local % chunk:
        raise UsageError(f"--bn-chunk: expected a divisor of the {local} images of a process, got {chunk}")


def check_image_size(model: nn.Module, size: tuple[int, int], device: torch.device) -> None:
    """The network gives a feature for images as small as these.

    Raises:
        UsageError: if it does not.
    """
    if min(size) >= 64:  # tried when the network was built
        return
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, *size, device=device))
    except RuntimeError as error:
        why = str(error).splitlines()[0]
        raise UsageError(f"--height, --width: {size[0]} x {size[1]} is too small for the network ({why})") from error
    finally:
        model.train(training)


def build_step_and_state(config: TrainConfig, plan: Plan, world: World) -> tuple[TrainStep, TrainState]:
    """Network, memory and optimiser, the same on every process.

    Raises:
        UsageError: as `build_network`.
    """
    optim = config.optim
    seed_everything(config.run.seed)
    model = world.together(lambda: build_network(config.model)).to(world.device)
    if optim.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    local = optim.batch_size // world.size
    if config.model.bn_chunk:
        convert_ghost_batch_norm(model, max(1, local // config.model.bn_chunk))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=optim.lr, weight_decay=optim.weight_decay)
    precision = Precision(optim.precision, world.device)
    memory = plan.method.memory(plan.settings, model.num_features).to(world.device)
    wrapped: nn.Module = torch.compile(model) if optim.compile else model  # type: ignore[assignment]
    if world.size > 1:
        ids = [world.device.index] if world.device.type == "cuda" else None
        wrapped = DistributedDataParallel(wrapped, device_ids=ids)
    step = TrainStep(wrapped, plan.objective, memory, optimizer, precision, world, optim.clip_grad)
    return step, TrainState(config, model, optimizer, precision, memory, plan.labeller, world)
