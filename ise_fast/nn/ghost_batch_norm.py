"""Batch normalisation over parts of a batch, so that one GPU trains as several did.

The published runs of this field normalise 256 images in four groups of 64, because DataParallel gave each of four GPUs
its own quarter and its own statistics. On one GPU a plain BatchNorm sees all 256; users of other programs report 7 to
25 mAP less. Ghost batch normalisation (Hoffer et al. 2017, "Train longer, generalize better") brings the groups back on
any number of GPUs.
"""

from __future__ import annotations

from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def _checked(chunks: int) -> int:
    if not isinstance(chunks, int) or isinstance(chunks, bool):
        raise TypeError(f"chunks: expected an integer, got {type(chunks).__name__}")
    if chunks < 1:
        raise ValueError(f"chunks: expected at least 1, got {chunks}")
    return chunks


class _GhostBatchNorm(nn.modules.batchnorm._BatchNorm):
    """What the 1d and the 2d layer share; the number of dimensions is checked by nn.BatchNorm1d / 2d beside it."""

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
        self.chunks = _checked(chunks)

    def forward(self, input: Tensor) -> Tensor:
        chunks = min(self.chunks, input.shape[0] // 2)
        if not self.training or chunks <= 1:
            return super().forward(input)
        self._check_input_dim(input)
        first, *rest = input.tensor_split(chunks)
        # Only the first chunk reaches the running statistics: under DataParallel the copies on the other GPUs are
        # thrown away after the step, and only the first one shares its buffers with the model that is kept.
        outputs = [super().forward(first)]
        outputs += [F.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=self.eps) for x in rest]
        return torch.cat(outputs)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, chunks={self.chunks}"


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
        TypeError: if `chunks` is not an integer.
        ValueError: if `chunks` is below 1, or the input has another number of dimensions.
    """


class GhostBatchNorm2d(_GhostBatchNorm, nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` that normalises `chunks` consecutive parts of a training batch each by itself.

    See `GhostBatchNorm1d` for the rule and the arguments. Shape: [B, C, H, W] to the same shape.
    """


def convert_ghost_batch_norm(module: ModuleT, chunks: int) -> ModuleT:
    """Replace every BatchNorm1d and BatchNorm2d in `module` by its ghost twin with this number of chunks.

    The new layers own the same parameter and buffer tensors, so an optimiser made before the conversion stays valid,
    and keep frozen parameters and training mode. Ghost layers that are there already get the new number of chunks;
    other kinds of normalisation (SyncBatchNorm, InstanceNorm, ...) are left alone.

    Args:
        module: any module; changed in place.
        chunks: parts per training batch *that this process sees*: batch size / (processes x 64) for chunks of 64.

    Returns:
        `module`, or the new layer if `module` itself is a BatchNorm.
    """
    chunks = _checked(chunks)
    return cast(ModuleT, _convert(module, chunks))


def _convert(module: nn.Module, chunks: int) -> nn.Module:
    if isinstance(module, _GhostBatchNorm):
        module.chunks = chunks
    elif type(module) in _GHOST_TWIN:
        return _twin(module, chunks)
    for name, child in module.named_children():
        setattr(module, name, _convert(child, chunks))
    return module


def _twin(norm: Any, chunks: int) -> nn.Module:
    twin = _GHOST_TWIN[type(norm)](
        norm.num_features, chunks, norm.eps, norm.momentum, norm.affine, norm.track_running_stats, device="meta"
    )
    # Tensors are handed over, not copied; forward hooks are not: they belong to the layer they were put on.
    twin._parameters, twin._buffers = norm._parameters, norm._buffers
    return twin.train(norm.training)


_GHOST_TWIN: dict[type[nn.Module], type[_GhostBatchNorm]] = {
    nn.BatchNorm1d: GhostBatchNorm1d,
    nn.BatchNorm2d: GhostBatchNorm2d,
}
