"""What the wrappers do to their arguments before a compiled operator sees them."""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from ise_fast._checks import FLOATING, check_dense


def floating(name: str, x: Tensor) -> Tensor:
    """The tensor, of any floating dtype.

    Raises:
        TypeError: if it is no floating tensor.
    """
    check_dense(name, x)
    if x.dtype not in FLOATING:
        raise TypeError(f"{name}: expected a floating dtype, got {str(x.dtype).removeprefix('torch.')}")
    return x


def working_dtype(x: Tensor) -> torch.dtype:
    """What is computed of such numbers: float64 of float64, else float32."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def in_working_precision(name: str, x: Tensor) -> Tensor:
    """float16 and bfloat16 as float32, float32 and (CPU) float64 as they are; differentiable.

    Raises:
        TypeError: if it is no floating tensor.
    """
    return floating(name, x).to(working_dtype(x))


def differentiable(operator: str, x: Tensor) -> Tensor:
    """`floating` for the features of a loss, whose gradient goes backwards only.

    Raises:
        TypeError: if it is no floating tensor.
        NotImplementedError: if it carries a tangent of forward-mode differentiation, which torch would take for 0.
    """
    floating("features", x)
    if not torch.compiler.is_compiling() and unpack_dual(x).tangent is not None:
        raise NotImplementedError(
            f"{operator}: forward-mode derivatives are not available; ise_fast.reference.{operator} has them"
        )
    return x


def refuse_second_derivative(operator: str) -> NoReturn:
    """For the backward operators, whose own gradient nobody has written."""
    raise NotImplementedError(
        f"{operator}: second derivatives are not available; ise_fast.reference.{operator} has them (create_graph=True)"
    )
