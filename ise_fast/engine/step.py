"""One training step: forward, loss on the whole batch and memory (`loss_step.py`), backward, optimiser."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ise_fast.engine.distributed import World
from ise_fast.engine.errors import NonFiniteError
from ise_fast.engine.loss_step import LossStep
from ise_fast.engine.precision import Precision
from ise_fast.engine.step_graph import GraphedLossStep
from ise_fast.methods import Batch, Memory


class TrainStep:
    """The step of any method.

    Args:
        model: images [B, 3, h, w] float32 -> [B, d] unit rows; under DistributedDataParallel with several processes.
        loss: what follows the network.
        memory: that of the loss.
        optimizer: over the model's parameters.
        precision: arithmetic of the network.
        world: this process among its peers.
        clip: largest gradient norm; 0: no limit.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: LossStep | GraphedLossStep,
        memory: Memory,
        optimizer: torch.optim.Optimizer,
        precision: Precision,
        world: World,
        clip: float = 0.0,
    ) -> None:
        self.model = model
        self.loss = loss
        self.memory = memory
        self.optimizer = optimizer
        self.precision = precision
        self.world = world
        self.clip = clip

    def __call__(self, images: Tensor, batch: Batch, progress: float) -> tuple[Tensor, ...]:
        """Train on one batch.

        Args:
            images: [B / processes, 3, h, w] float32, this process' part of the batch.
            batch: images and labels of the *whole* batch, in rank order.
            progress: t / T in [0, 1): iterations done, of all of the run.

        Returns:
            The loss and its parts, detached scalars that hold until the next step.
        """
        with self.precision.autocast():
            embedded = self.model(images)
        features = self.world.gather_batch(embedded.float())
        if features.device.type == "cpu":  # free there; on a GPU the log of losses finds it without a wait
            require_finite("features", features.detach())
        result = self.loss(features, batch, progress)
        self.precision.backward_and_step(features, result.gradient, self.model, self.optimizer, self.clip)
        return result.losses


def require_finite(name: str, value: Tensor) -> None:
    """Stop if a tensor holds NaN or infinity.

    Raises:
        NonFiniteError: naming the tensor.
    """
    if not bool(torch.isfinite(value).all()):
        raise NonFiniteError(f"{name} of shape {list(value.shape)} hold NaN or infinity")


class LossLog:
    """Losses of an epoch, kept on the device so that no step waits for the host; checked for NaN when read.

    Args:
        parts: names of the parts of the loss.
        iterations: steps in the epoch.
        device: of the losses.
        values: losses of the steps done before a resume, [done, columns].
    """

    def __init__(
        self, parts: Sequence[str], iterations: int, device: torch.device, values: Tensor | None = None
    ) -> None:
        self.names = ("loss", *parts)
        self.values = torch.zeros((iterations, len(self.names)), device=device)
        self.checked = 0
        if values is not None:
            # Older versions wrote columns for parts that a method did not have.
            self.values[: values.shape[0]] = values[:, : len(self.names)].to(device)
            self.checked = values.shape[0]

    def put(self, iteration: int, losses: Sequence[Tensor]) -> None:
        self.values[iteration] = torch.stack([loss.float() for loss in losses])

    def read(self, done: int) -> Tensor:
        """[done, columns] losses on the CPU.

        Raises:
            NonFiniteError: naming the first iteration and loss that is not finite.
        """
        values = self.values[:done].cpu()
        bad = torch.nonzero(~torch.isfinite(values[self.checked :]))
        if bad.numel():
            iteration, column = self.checked + int(bad[0, 0]), int(bad[0, 1])
            name = self.names[column]
            raise NonFiniteError(f"{name} is {float(values[iteration, column])} at iteration {iteration + 1}")
        self.checked = done
        return values
