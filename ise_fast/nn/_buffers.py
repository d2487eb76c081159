"""Buffers of a memory: their length changes by epoch, their precision never."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from torch import Tensor, nn


class KeepsPrecision(nn.Module):
    """A module whose buffers move with it, and keep their dtype where the modules around it are cast.

    They are what an algorithm has counted, not weights: `half` would leave nothing that an operator takes, and `float`
    would round float64.
    """

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        def moved(tensor: Tensor) -> Tensor:
            new: Tensor = fn(tensor)
            return new if new.dtype == tensor.dtype else tensor.to(new.device)

        super()._apply(moved, recurse)
        return self


def take_lengths(
    module: nn.Module, state_dict: Mapping[str, Any], prefix: str, *names: str, any_shape: bool = False
) -> None:
    """Give buffers the lengths of those that are about to be loaded, so that they fit.

    Args:
        module: whose `_load_from_state_dict` this is.
        state_dict: as there.
        prefix: as there.
        names: of the buffers.
        any_shape: all dimensions may differ; else others than the first are left for torch to complain of.
    """
    for name in names:
        incoming, own = state_dict.get(prefix + name), getattr(module, name)
        if isinstance(incoming, Tensor) and (any_shape or incoming.shape[1:] == own.shape[1:]):
            setattr(module, name, own.new_empty(incoming.shape))
