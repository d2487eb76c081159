"""How an operator says what it would return: shapes and dtypes for meta and fake tensors, on one device."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from ise_fast._checks import check_device
from ise_fast.ops._negative import refuse_negative_views

Fake = TypeVar("Fake", bound=Callable[..., Any])


def register_fake(name: str) -> Callable[[Fake], Fake]:
    """`torch.library.register_fake` for an operator of ise_fast, whose tensors must be on one device.

    torch would take a meta tensor beside real ones for a question about shapes, and answer in uninitialised memory.
    """

    def register(function: Fake) -> Fake:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            arguments = signature.bind(*args, **kwargs).arguments
            tensors = {key: value for key, value in arguments.items() if isinstance(value, Tensor)}
            first = next(iter(tensors))
            for key, value in tensors.items():
                check_device(key, value, first, tensors[first])
            return function(*args, **kwargs)

        torch.library.register_fake(f"ise_fast::{name}", checked)
        refuse_negative_views(name)
        return function

    return register
