"""The optimiser of a run, and its learning rate as a function of the settings and the epoch alone."""

from __future__ import annotations

import torch
from torch import nn

from ise_fast.engine.sections import OptimConfig

FALL = 0.1  # of the learning rate, at every step or milestone


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """Adam, or SGD with momentum, over the weights that are trained.

    Args:
        model: with `--backbone-lr` other than 1, its attribute `backbone` gets that share of the learning rate.
        config: the settings.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [{"params": trained, "share": 1.0}]
    if config.backbone_lr != 1:
        slow = {id(p) for p in model.backbone.parameters()}  # type: ignore[union-attr]
        groups = [
            {"params": [p for p in trained if id(p) in slow], "share": config.backbone_lr},
            {"params": [p for p in trained if id(p) not in slow], "share": 1.0},
        ]
    if config.optimizer == "adam":
        return torch.optim.Adam(groups, lr=config.lr, weight_decay=config.weight_decay)
    return torch.optim.SGD(
        groups, lr=config.lr, momentum=config.sgd_momentum, nesterov=config.nesterov, weight_decay=config.weight_decay
    )


def milestones(text: str | None) -> tuple[int, ...]:
    """The epochs of `--milestones`.

    Raises:
        ValueError: if they are no rising whole numbers from 1 on.
    """
    if text is None:
        return ()
    epochs = tuple(int(word) for word in text.split(","))
    if any(after <= before for before, after in zip((0, *epochs), epochs, strict=False)):
        raise ValueError
    return epochs


def learning_rate(config: OptimConfig, epoch: int) -> float:
    """A tenth after every `step_size` epochs, or from each milestone on; in the first epochs rising to that."""
    falls = milestones(config.milestones)
    number = sum(epoch >= start for start in falls) if falls else epoch // config.step_size
    rate = config.lr * FALL**number
    if epoch < config.warmup_epochs:
        rate *= config.warmup_start + (1 - config.warmup_start) * epoch / config.warmup_epochs
    return rate


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The rate, or its share, for every group of weights."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("share", 1.0)  # checkpoints of older versions have no shares
