"""Buffers whose length changes by epoch, in a state dict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


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
