"""Batch normalisation over parts of a batch, so that one GPU trains as several did.

The published runs of this field normalise 256 images in four groups of 64, because DataParallel gave each of four GPUs
its own quarter and its own statistics. On one GPU a plain BatchNorm sees all 256; users of other programs report 7 to
25 mAP less. Ghost batch normalisation (Hoffer et al. 2017, "Train longer, generalize better") brings the groups back on
any number of GPUs.
"""

from __future__ import annotations

import warnings
from collections import Counter
from functools import cache
from inspect import signature
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ise_fast._checks import check_int

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class _GhostBatchNorm(nn.modules.batchnorm._BatchNorm):
    """What all ghost layers share; the layer whose twin it is stands behind it among a class's bases."""

    chunks: int

    def __init__(
        self,
        num_features: int,
        chunks: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)
        self.chunks = check_int("chunks", chunks, 1)

    def forward(self, input: Tensor) -> Tensor:
        chunks = min(self.chunks, input.shape[0] // 2)
        if not self.training or chunks <= 1:
            return super().forward(input)
        # Only the first chunk reaches the running statistics: under DataParallel the copies on the other GPUs are
        # thrown away after the step, and only the first one shares its buffers with the model that is kept.
        first, *rest = input.tensor_split(chunks)
        return torch.cat([super().forward(first), *self._without_statistics(rest)])

    def _without_statistics(self, parts: list[Tensor]) -> list[Tensor]:
        """The parts, each normalised by itself; running statistics stay as they are."""
        return [F.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=self.eps) for x in parts]

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, chunks={self.chunks}"


class _GhostOfSubclass(_GhostBatchNorm):
    """The twin of a subclass, which does more than normalise: each part goes through the subclass's own forward."""

    def _without_statistics(self, parts: list[Tensor]) -> list[Tensor]:
        kept = self._buffers
        self._buffers = {name: None if x is None else x.clone() for name, x in kept.items()}
        try:
            return [super(_GhostBatchNorm, self).forward(x) for x in parts]
        finally:
            self._buffers = kept

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle finds the subclass by its name, and its twin by the subclass."""
        return _new, (type(self).__bases__[-1],), self.__getstate__()


@cache
def _ghost_of(plain: type[nn.Module]) -> type[_GhostBatchNorm] | None:
    """The ghost twin of a class of layers, None where there is none."""
    if plain is nn.BatchNorm1d:
        return GhostBatchNorm1d
    if plain is nn.BatchNorm2d:
        return GhostBatchNorm2d
    takes_more = len(signature(plain.forward).parameters) != 2  # besides self and the batch, and how is that split?
    if takes_more or not issubclass(plain, nn.BatchNorm1d | nn.BatchNorm2d):
        return None
    return type(f"Ghost{plain.__name__}", (_GhostOfSubclass, plain), {"__module__": plain.__module__})


def _new(plain: Any) -> nn.Module:
    twin = _ghost_of(plain)
    assert twin is not None
    return twin.__new__(twin)


class GhostBatchNorm1d(_GhostBatchNorm, nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` that normalises `chunks` consecutive parts of a training batch each by itself.

    In training, the B rows are split in batch order into `chunks` parts, as DataParallel splits a batch over that many
    GPUs, so a batch of 256 in chunks of 64 is ``chunks=4``. If B is not divisible, the first parts have one row more;
    no part gets fewer than two rows (a small batch is split into fewer parts). Running statistics are updated from the
    first part only. In evaluation, and with ``chunks=1``, it is a plain BatchNorm. Parameters, buffers and their names
    are those of `torch.nn.BatchNorm1d`: a `state_dict` of either loads into the other.

    Args:
        num_features: C, the number of channels.
        chunks: number of parts, at least 1.
        eps, momentum, affine, track_running_stats, device, dtype: as in `torch.nn.BatchNorm1d`.

    Shape:
        [B, C] or [B, C, L] to the same shape.

    Raises:
        TypeError, ValueError: if `chunks` is no integer of at least 1.
        ValueError: if the input has another number of dimensions.
    """


class GhostBatchNorm2d(_GhostBatchNorm, nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` that normalises `chunks` consecutive parts of a training batch each by itself.

    See `GhostBatchNorm1d` for the rule and the arguments. Shape: [B, C, H, W] to the same shape.
    """


def convert_ghost_batch_norm(module: ModuleT, chunks: int) -> ModuleT:
    """Make every BatchNorm1d and BatchNorm2d in `module` its ghost twin with this number of chunks.

    The layers stay the objects that they are, with their tensors, hooks, frozen parameters and training mode, and
    become instances of `GhostBatchNorm1d` or `GhostBatchNorm2d`: an optimiser made before stays valid. Layers of a
    subclass, such as timm's BatchNormAct2d, get a twin of their own, which sends each part of the batch through the
    subclass's forward. Ghost layers that are there already get the new number of chunks.

    SyncBatchNorm, BatchNorm3d, lazy layers that have seen no batch yet, and subclasses whose forward takes more than
    the batch are left alone, which a warning says. So are other kinds of normalisation (InstanceNorm, ...), in silence.

    Args:
        module: any module; changed in place.
        chunks: parts per training batch *that this process sees*: batch size / (processes x 64) for chunks of 64.

    Returns:
        `module`.

    Raises:
        TypeError, ValueError: if `chunks` is no integer of at least 1.

    Warns:
        UserWarning: if there are layers of batch normalisation that were left alone, and chunks > 1.
    """
    chunks = check_int("chunks", chunks, 1)
    left: Counter[str] = Counter()
    for layer in list(module.modules()):
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and not isinstance(layer, _GhostBatchNorm):
            plain: Any = type(layer)
            twin = _ghost_of(plain)
            if twin is None:
                left[plain.__name__] += 1
                continue
            layer.__class__ = twin
        if isinstance(layer, _GhostBatchNorm):
            layer.chunks = chunks
    if left and chunks > 1:
        found = ", ".join(f"{count} {name}" for name, count in left.items())
        warnings.warn(f"module: no ghost twin of {found}: these layers normalise whole batches", stacklevel=2)
    return module
