"""The data set of a run: found or generated, and looked at before its images are decoded."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from dataclasses import replace
from typing import Any

import numpy as np

from ise_fast.data import DatasetError, DatasetWarning, ReIDDataset, Split, load_dataset
from ise_fast.engine.config import DataConfig, TrainConfig
from ise_fast.engine.distributed import World
from ise_fast.engine.errors import UsageError
from ise_fast.engine.evaluator import has_match
from ise_fast.engine.image_list import require_same_dataset

log = logging.getLogger(__name__)


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
        require_matches(query, gallery)
    except UsageError as error:
        if eval_step is None:
            raise
        if eval_step:
            raise UsageError(f"{error}; or train without evaluation: --eval-step 0") from None
        log.warning("%s", error)
        none = np.array([], dtype=np.int64)
        return dataset.take(query=none, gallery=none)
    return dataset


def require_matches(query: Split, gallery: Split) -> None:
    """Some query has a match in the gallery; a line about those that have none.

    Raises:
        UsageError: no query has one.
    """
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
