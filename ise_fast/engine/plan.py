"""What a run is going to do: its method, and whether the settings fit the images and the processes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from ise_fast.data import UnlabelledSplit
from ise_fast.engine.config import TrainConfig
from ise_fast.engine.distributed import World
from ise_fast.engine.errors import UsageError
from ise_fast.methods import Labeller, Method, Objective, find_labels, find_method, read_settings
from ise_fast.methods.softened import soften


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
        labels = config.plan.labels or method.labels
        if method.fixed_labels and labels != method.labels:
            raise ValueError(f"--labels: {config.plan.method} takes only its own, {method.labels}, got {labels}")
        source = find_labels(labels)
        settings = read_settings(method.settings, flat)
        labeller = source.make(read_settings(source.settings, flat), config.run.seed)
        mixed, smoothing = config.mix.mix != "none", config.mix.label_smoothing
        objective = soften(method.objective(settings), mixed=mixed, smoothing=smoothing)
        return Plan(method, settings, labeller, objective)
    except ValueError as error:
        raise UsageError(str(error)) from error


def with_parts(config: TrainConfig, plan: Plan) -> TrainConfig:
    """The settings with the parts that the method needs, so that a checkpoint tells them.

    Raises:
        UsageError: parts that the method has no use for.
    """
    parts = config.model.parts or plan.method.parts
    if parts and not plan.method.parts:
        raise UsageError(
            f"--parts: expected 0 for --method {config.plan.method}, which has no use for parts, got {parts}"
        )
    return replace(config, model=replace(config.model, parts=parts))


def check_plan(config: TrainConfig, plan: Plan, split: UnlabelledSplit) -> None:
    """What the method needs of the training images, before they are decoded.

    Raises:
        UsageError: naming the flag.
    """
    if plan.method.needs_cameras and split.cams is None:
        raise UsageError(f"--method: {config.plan.method} needs the cameras of the training images, and none are known")
    if plan.method.needs_frames and split.frames is None:
        raise UsageError(
            f"--method: {config.plan.method} needs the frames of the training images, and none are known; --labels-csv "
            "may tell them in a column frame"
        )
    wanted = "tracklets" if config.plan.tracklets != "ignore" else "tracklet-epochs"
    if config.plan.tracklets != "ignore" or config.plan.tracklet_epochs:
        if split.tracklets is None:
            raise UsageError(f"--{wanted}: no tracklet is known of the training images; --labels-csv needs that column")
        if plan.method.fixed_labels:
            raise UsageError(f"--{wanted}: {config.plan.method} has no clusters that tracklets could be part of")
    cams, frames = (None if value is None else torch.from_numpy(value) for value in (split.cams, split.frames))
    try:
        plan.labeller.know(cams, frames)
    except ValueError as error:
        raise UsageError(str(error)) from None
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
