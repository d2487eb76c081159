"""Everything that a resumed run needs to go on as if it had never stopped, packed into a checkpoint and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ise_fast.engine import checkpoint
from ise_fast.engine.config import TrainConfig
from ise_fast.engine.distributed import World
from ise_fast.engine.errors import UsageError
from ise_fast.engine.precision import Precision
from ise_fast.nn import ClusterMemory

# Settings that may differ between the run that saved and the run that resumes. Only `epochs` has a say in the weights:
# a longer run is a wish that resuming must grant, at the price of a jump in the interpolation degree.
_FREE = {"preset", "data_dir", "workers", "cache", "cache_dir", "logs_dir", "resume", "device", "print_freq", "epochs"}
_FREE |= {"checkpoint_step", "keep_checkpoints", "tensorboard", "report", "progress", "test_batch_size", "eval_step"}


@dataclass
class Progress:
    """Where training stands: the next iteration to run is `iteration` of `epoch`, both from 0."""

    epoch: int = 0
    iteration: int = 0
    labels: Tensor | None = None  # [N] int64 on the CPU: pseudo labels of this epoch, or of the last one
    losses: Tensor | None = None  # [iteration, 3]: of this epoch so far
    record: dict[str, Any] = field(default_factory=dict)  # of this epoch so far
    history: list[dict[str, Any]] = field(default_factory=list)  # of the epochs done
    best: dict[str, Any] | None = None  # record of the best epoch


class TrainState:
    """The parts of a run that change, as one dictionary of tensors and plain values.

    Args:
        config: the settings; saved, and compared when resuming. The learning rate follows from them and the epoch.
        model: the bare network, without the wrappers of DistributedDataParallel and torch.compile.
        optimizer: over its parameters.
        precision: holds the scaler of the loss.
        memory: the centroids.
        world: this process among its peers.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        precision: Precision,
        memory: ClusterMemory,
        world: World,
    ) -> None:
        self.config = config
        self.model = model
        self.optimizer = optimizer
        self.precision = precision
        self.memory = memory
        self.world = world
        self.progress = Progress()

    def pack(self) -> dict[str, Any]:
        """The state for a checkpoint; every rank must call it."""
        progress = self.progress
        inside = progress.iteration > 0
        return {
            "format": checkpoint.FORMAT,
            "config": self.config.flat(),
            "epoch": progress.epoch,
            "iteration": progress.iteration,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.precision.scaler.state_dict(),
            "random": self.world.gather_objects(checkpoint.random_state()),
            # Between epochs the memory is about to be rebuilt from new clusters.
            "memory": self.memory.state_dict() if inside else None,
            "labels": progress.labels,
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
        changed = [k for k in now if k not in _FREE and k in saved and saved[k] != now[k]]
        if changed:
            what = ", ".join(f"--{k.replace('_', '-')} {saved[k]} -> {now[k]}" for k in changed)
            raise UsageError(
                f"--resume: the run was started with other settings ({what}); use the old ones or a new --logs-dir"
            )
        try:
            self.model.load_state_dict(state["model"])
        except RuntimeError as error:
            raise UsageError(
                f"--resume: the weights do not fit {self.config.model.arch}: {str(error).splitlines()[0]}"
            ) from None
        self.optimizer.load_state_dict(state["optimizer"])
        self.precision.scaler.load_state_dict(state["scaler"])
        if len(state["random"]) == self.world.size:
            checkpoint.set_random_state(state["random"][self.world.rank])
        if state["memory"] is not None:
            self.memory.load_state_dict(state["memory"])
        self.progress = Progress(
            state["epoch"],
            state["iteration"],
            state["labels"],
            state["losses"],
            state["record"],
            state["history"],
            state["best"],
        )
