"""One training step: forward, loss on the whole batch, backward, optimiser, and then the memory of centroids."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ise_fast.engine.distributed import World
from ise_fast.engine.errors import NonFiniteError
from ise_fast.engine.precision import Precision
from ise_fast.nn import ClusterMemory, ClusterNCELoss, ISELoss


class StepLosses(NamedTuple):
    """Detached scalars of one step. The baseline has one part: contrastive is the loss, label_preserving 0."""

    loss: Tensor
    contrastive: Tensor
    label_preserving: Tensor


class TrainStep:
    """The step of ISE, or of Cluster Contrast when the criterion has no supports.

    Args:
        model: images [B, 3, h, w] float32 -> [B, d] unit rows; under DistributedDataParallel with several processes.
        criterion: the loss; it decides the method.
        memory: centroids, the same on every process.
        optimizer: over the model's parameters.
        precision: arithmetic of the network.
        world: this process among its peers.
        clip: largest gradient norm; 0: no limit.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: ISELoss | ClusterNCELoss,
        memory: ClusterMemory,
        optimizer: torch.optim.Optimizer,
        precision: Precision,
        world: World,
        clip: float = 0.0,
    ) -> None:
        self.model = model
        self.criterion = criterion
        self.memory = memory
        self.optimizer = optimizer
        self.precision = precision
        self.world = world
        self.clip = clip

    def __call__(self, images: Tensor, labels: Tensor, progress: float) -> StepLosses:
        """Train on one batch.

        Args:
            images: [B / processes, 3, h, w] float32, this process' part of the batch.
            labels: [B] int64, clusters of the *whole* batch, in rank order.
            progress: t / T in [0, 1], which sets the interpolation degree.
        """
        with self.precision.autocast():
            embedded = self.model(images)
        features = self.world.gather_batch(embedded.float())
        supports: Tensor | None = None
        if features.device.type == "cpu":  # free there; on a GPU the log of losses finds it without a wait
            require_finite("features", features.detach())
        if isinstance(self.criterion, ISELoss):
            output = self.criterion(features, labels, self.memory, progress)
            loss, supports = output.loss, output.supports
            parts = StepLosses(loss.detach(), output.contrastive.detach(), output.label_preserving.detach())
        else:
            loss = self.criterion(features, labels, self.memory)
            parts = StepLosses(loss.detach(), loss.detach(), torch.zeros_like(loss.detach()))
        # The gathered rows of other processes carry no gradient here and DistributedDataParallel averages: times size.
        self.precision.backward_and_step(loss * self.world.size, self.model, self.optimizer, self.clip)
        self.memory.update(features.detach(), labels, supports)
        return parts


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
        iterations: steps in the epoch.
        device: of the losses.
        values: losses of the steps done before a resume, [done, 3].
    """

    def __init__(self, iterations: int, device: torch.device, values: Tensor | None = None) -> None:
        self.values = torch.zeros((iterations, len(StepLosses._fields)), device=device)
        self.checked = 0
        if values is not None:
            self.values[: values.shape[0]] = values.to(device)
            self.checked = values.shape[0]

    def put(self, iteration: int, losses: StepLosses) -> None:
        self.values[iteration] = torch.stack([loss.float() for loss in losses])

    def read(self, done: int) -> Tensor:
        """[done, 3] losses on the CPU.

        Raises:
            NonFiniteError: naming the first iteration and loss that is not finite.
        """
        values = self.values[:done].cpu()
        bad = torch.nonzero(~torch.isfinite(values[self.checked :]))
        if bad.numel():
            iteration, column = self.checked + int(bad[0, 0]), int(bad[0, 1])
            name = StepLosses._fields[column]
            raise NonFiniteError(f"{name} is {float(values[iteration, column])} at iteration {iteration + 1}")
        self.checked = done
        return values
