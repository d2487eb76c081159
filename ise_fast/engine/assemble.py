"""From settings to the parts of a run: network, memory and optimiser here, the rest under one roof."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ise_fast.engine.checkpoint import seed_everything
from ise_fast.engine.config import DataConfig, ModelConfig, TrainConfig
from ise_fast.engine.distributed import World
from ise_fast.engine.errors import UsageError
from ise_fast.engine.loss_step import LossStep
from ise_fast.engine.optimizer import build_optimizer
from ise_fast.engine.plan import Plan, check_plan, check_sizes, make_plan, require_same_settings, with_parts
from ise_fast.engine.precision import Precision
from ise_fast.engine.run_dataset import check_test_images, image_size, open_dataset, with_image_size
from ise_fast.engine.run_images import RetrievalImages, TrainingImages, open_test_images, open_training_images
from ise_fast.engine.state import TrainState
from ise_fast.engine.step import TrainStep
from ise_fast.engine.step_graph import CudaRecorder, GraphedLossStep, obstacle
from ise_fast.models import EmbeddingNet, build_model
from ise_fast.nn import convert_ghost_batch_norm

__all__ = [
    "Plan", "RetrievalImages", "TrainingImages",
    "build_network", "build_step_and_state", "check_image_size", "check_plan", "check_sizes", "check_test_images",
    "image_size", "make_plan", "open_dataset", "open_test_images", "open_training_images", "require_same_settings",
    "with_image_size", "with_parts",
]  # fmt: skip


def build_network(config: ModelConfig, images: DataConfig, *, weights: bool = True) -> EmbeddingNet:
    """The embedding network, on the CPU.

    Args:
        config: architecture, pooling, embedding size.
        images: their height and width, where they are known.
        weights: load the pretrained weights; False where a checkpoint follows.

    Raises:
        UsageError: an unknown architecture, a weight file that is missing or does not fit, or no ReLU to leave out.
    """
    try:
        model = build_model(
            config.arch,
            pretrained=config.pretrained if weights else "none",
            pooling=config.pooling_type,
            num_features=config.features,
            size=(images.height, images.width) if images.height and images.width else None,
            parts=config.parts,
        )
    except (ValueError, FileNotFoundError, ImportError) as error:
        raise UsageError(str(error)) from error
    if not config.stem_relu:
        if not all(hasattr(model.backbone, name) for name in ("conv1", "relu", "layer4")):
            raise UsageError(f"--no-stem-relu: expected a ResNet, which has one, got --arch {config.arch}")
        model.leave_out_relu()
    return model


def check_image_size(model: nn.Module, size: tuple[int, int], device: torch.device) -> None:
    """The network gives a feature for images of this size.

    Raises:
        UsageError: if it does not.
    """
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, *size, device=device))
    except (RuntimeError, AssertionError, ValueError) as error:  # too small, or not the one that a network is bound to
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"--height, --width: the network does not take {size[0]} x {size[1]} ({why})") from error
    finally:
        model.train(training)


def build_step_and_state(config: TrainConfig, plan: Plan, world: World) -> tuple[TrainStep, TrainState]:
    """Network, memory and optimiser, the same on every process.

    Raises:
        UsageError: as `build_network`.
    """
    optim = config.optim
    seed_everything(config.run.seed)
    model = world.together(lambda: build_network(config.model, config.data)).to(world.device)
    if optim.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    local = optim.batch_size // world.size
    if config.model.bn_chunk:
        convert_ghost_batch_norm(model, max(1, local // config.model.bn_chunk))
    optimizer = build_optimizer(model, optim)
    precision = Precision(optim.precision, world.device)
    memory = plan.method.memory(plan.settings, model.num_features).to(world.device)
    wrapped: nn.Module = torch.compile(model) if optim.compile else model  # type: ignore[assignment]
    if world.size > 1:
        ids = [world.device.index] if world.device.type == "cuda" else None
        wrapped = DistributedDataParallel(wrapped, device_ids=ids)
    model.gives_parts = config.model.parts > 0  # in training; the evaluator asks for whole images
    loss = LossStep(plan.objective, memory, precision, world, config.model.parts)
    replayed = obstacle(optim.cuda_graph, world.device, plan.objective, memory) is None
    head = GraphedLossStep(loss, CudaRecorder()) if replayed else loss
    step = TrainStep(wrapped, head, memory, optimizer, precision, world, optim.clip_grad)
    return step, TrainState(config, model, optimizer, precision, memory, plan.labeller, world)
