"""Everything that a resumed run needs to go on as if it had never stopped, packed into a checkpoint and back."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ise_fast.engine import checkpoint
from ise_fast.engine.config import TrainConfig
from ise_fast.engine.distributed import World
from ise_fast.engine.errors import UsageError
from ise_fast.engine.image_list import places
from ise_fast.engine.precision import Precision
from ise_fast.methods import Labeller, Memory

log = logging.getLogger(__name__)

# Settings that may differ between the run that saved and the run that resumes. Two have a say in the weights: `epochs`,
# since a longer run is a wish that resuming must grant, at the price of a jump in the interpolation degree, and
# `test_batch_size`, since memory may be short elsewhere: products of other sizes round differently, and so do those of
# another number of threads, which is no setting. Of these two there is a warning. Where the images and their table lie
# is free: the signature of the list says whether they are the same.
_FREE = {"preset", "data_dir", "labels_csv", "workers", "cache", "cache_dir", "logs_dir", "resume", "device", "epochs"}
_FREE |= {"checkpoint_step", "keep_checkpoints", "tensorboard", "report", "progress", "test_batch_size", "eval_step"}
_FREE |= {"print_freq", "quiet", "cuda_graph"}


def changed_settings(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Settings that differ and that a resumed run must keep.

    One that `saved` lacks is newer than the program that saved, which did what the default does today. A setting of a
    plug-in's own, whose default is not known here, cannot be compared then.
    """
    before = before_settings(saved)
    return [name for name in now if name not in _FREE and name in before and before[name] != now[name]]


def before_settings(saved: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run, those that its program did not have yet included."""
    return {**TrainConfig().flat(), **saved}


@dataclass
class Progress:
    """Where training stands: the next iteration to run is `iteration` of `epoch`, both from 0."""

    epoch: int = 0
    iteration: int = 0
    labels: Tensor | None = None  # [N] int64 on the CPU: pseudo labels of this epoch, or of the last one
    groups: Tensor | None = None  # [N] int64 on the CPU: what its batches are balanced over; None: the labels
    losses: Tensor | None = None  # [iteration, columns]: of this epoch so far
    record: dict[str, Any] = field(default_factory=dict)  # of this epoch so far
    history: list[dict[str, Any]] = field(default_factory=list)  # of the epochs done
    best: dict[str, Any] | None = None  # record of the best epoch

    @property
    def drawn(self) -> Tensor:
        """[N] what batches are balanced over, once there are labels."""
        drawn = self.labels if self.groups is None else self.groups
        assert drawn is not None
        return drawn


class TrainState:
    """The parts of a run that change, as one dictionary of tensors and plain values.

    Args:
        config: the settings; saved, and compared when resuming. The learning rate follows from them and the epoch.
        model: the bare network, without the wrappers of DistributedDataParallel and torch.compile.
        optimizer: over its parameters.
        precision: holds the scaler of the loss.
        memory: of the method.
        labeller: what it remembers from epoch to epoch.
        world: this process among its peers.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        precision: Precision,
        memory: Memory,
        labeller: Labeller,
        world: World,
    ) -> None:
        self.config = config
        self.model = model
        self.optimizer = optimizer
        self.precision = precision
        self.memory = memory
        self.labeller = labeller
        self.world = world
        self.images: Tensor | None = None  # [N, 8] signatures of the training images; None: not known, not compared
        self.progress = Progress()
        self.needs_labels = True  # the memory has not begun

    def pack(self) -> dict[str, Any]:
        """The state for a checkpoint; every rank must call it."""
        progress = self.progress
        inside = progress.iteration > 0
        return {
            "format": checkpoint.FORMAT,
            "config": self.config.flat(),
            "images": self.images,
            "epoch": progress.epoch,
            "iteration": progress.iteration,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.precision.scaler.state_dict(),
            "threads": torch.get_num_threads(),
            "random": self.world.gather_objects(checkpoint.random_state()),
            "memory": self.memory.state_dict(),
            "labeller": self.labeller.state_dict(),
            "labels": progress.labels,
            "groups": progress.groups,
            "losses": progress.losses if inside else None,
            "record": progress.record if inside else {},
            "history": progress.history,
            "best": progress.best,
        }

    def unpack(self, state: Mapping[str, Any]) -> None:
        """Go back to where `state` was packed.

        Raises:
            UsageError: if the run was started with other settings, or its weights do not fit this network.
        """
        saved, now = state["config"], self.config.flat()
        changed = changed_settings(saved, now)
        if changed:
            before = before_settings(saved)
            what = ", ".join(f"--{k.replace('_', '-')} {before[k]} -> {now[k]}" for k in changed)
            raise UsageError(
                f"--resume: the run was started with other settings ({what}); use the old ones or a new --logs-dir"
            )
        self._warn_of_other_rounding(state)
        state = self._match_images(state)
        try:
            self.model.load_state_dict(state["model"])
        except RuntimeError as error:
            raise UsageError(
                f"--resume: the weights do not fit {self.config.model.arch}: {str(error).splitlines()[0]}"
            ) from None
        with _part("optimizer"):
            self.optimizer.load_state_dict(state["optimizer"])
            _require_shapes(self.optimizer)
        with _part("scaler"):
            self.precision.scaler.load_state_dict(state["scaler"])
        if len(state["random"]) == self.world.size:
            with _part("random"):
                checkpoint.set_random_state(state["random"][self.world.rank])
        self.needs_labels = state["memory"] is None
        if state["memory"] is not None:
            with _part("memory"):
                self.memory.load_state_dict(state["memory"])
        with _part("labeller"):
            self.labeller.load_state_dict(state.get("labeller", {}))  # older versions: labellers had no state
        names = [item.name for item in dataclasses.fields(Progress)]
        known = {"groups": None, **state}  # older versions: batches had no groups
        self.progress = Progress(**{name: known[name] for name in names})

    def _warn_of_other_rounding(self, state: Mapping[str, Any]) -> None:
        """The run goes on, but not with the bits that it would have had without the stop."""
        before, now = before_settings(state["config"])["test_batch_size"], self.config.run.test_batch_size
        if before != now:
            log.warning("--test-batch-size %s -> %s: features are rounded differently from here on", before, now)
        threads, here = state.get("threads"), torch.get_num_threads()  # older versions: not known
        if self.world.device.type == "cpu" and threads not in (None, here):
            log.warning(
                "threads: %s then, %d now: sums are rounded differently from here on; OMP_NUM_THREADS=%s "
                "keeps the bits", threads, here, threads,
            )  # fmt: skip

    def _match_images(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """Pseudo labels belong to images by their place in the list: the state for the list of now.

        Where images were added, the epoch begins anew, with labels for all of them.

        Raises:
            UsageError: if an image of the run is not there any more.
        """
        saved, now, labels = state.get("images"), self.images, state["labels"]
        if now is None:
            return state
        if saved is None:
            if labels is not None and len(labels) != len(now):
                raise _other_images(len(labels), len(now))
            log.warning("the checkpoint is of an older version: it does not tell whether these are the same images")
            return state
        with _part("images"):
            if torch.equal(saved, now) and (labels is None or len(labels) == len(now)):
                return state
            found = places(saved, now)
        if found is None or len(now) <= len(saved):
            raise _other_images(len(saved), len(now))
        if not self.labeller.grows:
            raise UsageError(
                f"--resume: {len(now) - len(saved)} images were added, and these --labels go on from those of each "
                "image; take the old images, or start a new run in another --logs-dir"
            )
        log.warning("%d images were added to the %d of the run: clustered anew", len(now) - len(saved), len(saved))
        if labels is not None:
            with _part("labels"):
                labels = torch.full((len(now),), -1).index_put((found,), labels)
        return {**state, "labels": labels, "iteration": 0, "groups": None, "losses": None, "record": {}, "memory": None}


def _other_images(then: int, now: int) -> UsageError:
    return UsageError(
        f"--resume: the training images are not those of the run ({then} then, {now} now; some were removed, renamed "
        "or replaced, or have another camera); take the old ones, or start a new run in another --logs-dir"
    )


@contextmanager
def _part(name: str) -> Iterator[None]:
    """Whatever a library raises at a state of the wrong shape: one line that names the part of the checkpoint."""
    try:
        yield
    except Exception as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UsageError(f"--resume: {name!r} of the checkpoint cannot be used ({why})") from error


def _require_shapes(optimizer: torch.optim.Optimizer) -> None:
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.dim() and value.shape != parameter.shape:
                raise ValueError(f"{name} of shape {list(value.shape)} for a weight of shape {list(parameter.shape)}")
