"""A trained network with all that it takes to use it: image size, normalisation, arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ise_fast.data import ImageStore, open_images
from ise_fast.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from ise_fast.engine import assemble, checkpoint, checkpoint_parts
from ise_fast.engine.config import TrainConfig
from ise_fast.engine.distributed import World
from ise_fast.engine.errors import UsageError
from ise_fast.engine.features import FeatureExtractor
from ise_fast.engine.precision import Precision
from ise_fast.models import EmbeddingNet


class TrainedModel(nn.Module):
    """Images to unit vectors, normalisation inside. Made by `load_model`; in evaluation mode.

    Attributes:
        size: (height, width) of the images it was trained on.
        num_features: size of an embedding.
        config: the settings of its training.
        network: the bare network, which takes normalised images.

    Shape:
        [B, 3, h, w] floating in [0, 1] to [B, num_features] float32 unit rows.

    Example:
        >>> model = load_model("logs/synthetic-ise/checkpoints/best.pt")  # doctest: +SKIP
        >>> features = model.embed(["a.jpg", "b.jpg"])  # doctest: +SKIP
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, num_features: int, size: tuple[int, int], config: TrainConfig) -> None:
        super().__init__()
        self.network = network
        self.num_features = num_features
        self.size = size
        self.config = config
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.network((images - self.mean) / self.std)
        return features

    def embed(
        self,
        images: Sequence[Path | str] | ImageStore,
        *,
        batch_size: int = 256,
        workers: int = 2,
        on_batch: Callable[[int], object] = lambda images: None,
    ) -> Tensor:
        """Features of image files, as training and evaluation extract them.

        Args:
            images: paths, also inside zip archives, or an opened store of this size.
            batch_size: images in a batch.
            workers: threads that decode.
            on_batch: told after each batch how many images it had.

        Returns:
            [n, num_features] float32 unit rows on the model's device.

        Raises:
            DatasetError: for an image that cannot be read.
            ValueError: for a batch of no image.
        """
        store = images if isinstance(images, ImageStore) else open_images(images, self.size, "none", workers)
        device = self.mean.device
        precision = Precision(self.config.optim.precision, device)
        return FeatureExtractor(self.network, World(0, 1, device), precision, batch_size)(store, on_batch)


def open_checkpoint(path: Path) -> tuple[EmbeddingNet, TrainConfig, dict[str, Any]]:
    """The network of a checkpoint on the CPU, the settings of its training, and all of its content.

    Raises:
        UsageError: if the checkpoint is missing, damaged, incomplete or not one of ours.
    """
    state = checkpoint.load(path)
    checkpoint_parts.require(path, state, checkpoint_parts.FOR_EVALUATION)
    config = TrainConfig.from_flat(state["config"])
    network = assemble.build_network(config.model, config.data, weights=False)
    try:
        network.load_state_dict(state["model"])
    except RuntimeError as error:
        why = " ".join(str(error).split())[:200]
        raise UsageError(f"checkpoint {path}: its weights do not fit {config.model.arch}: {why}") from error
    return network, config, state


def load_model(
    path: Path | str, *, device: torch.device | str = "cpu", size: tuple[int, int] | None = None
) -> TrainedModel:
    """The network of a checkpoint of this program.

    Args:
        path: such as logs/NAME/checkpoints/best.pt.
        device: where the network goes.
        size: (height, width) of the images; default: as trained.

    Raises:
        UsageError: (a ValueError) if the checkpoint is missing, damaged or not one of ours.
    """
    network, config, _ = open_checkpoint(Path(path))
    if size is None:
        if config.data.height is None or config.data.width is None:
            raise UsageError(f"checkpoint {path}: it does not tell the size of its images; give height and width")
        size = config.data.height, config.data.width
    return TrainedModel(network, network.num_features, size, config).to(device)
