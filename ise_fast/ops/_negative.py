"""Operators that write, and views with the negative bit (the imaginary part of a conjugate is one).

torch copies such a view before it calls an operator that does not know the bit, and then takes the written copy from
the operator's first result, to put it back into the view. Ours that write return nothing: torch reads and writes beyond
the end of its stack, and the heap is damaged. So such a view is refused before torch sees to it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def refuse_negative_views(name: str) -> None:
    """Of the arguments that ise_fast::`name` writes; the others are resolved as ever."""
    operator = getattr(torch.ops.ise_fast, name).default
    parameters = operator._schema.arguments
    if not any(a.alias_info is not None and a.alias_info.is_write for a in parameters):
        return

    def resolved(*arguments: Any) -> Any:
        for parameter, value in zip(parameters, arguments, strict=False):
            if parameter.alias_info is not None and parameter.alias_info.is_write and value.is_neg():
                raise ValueError(f"{parameter.name}: expected a tensor to write into, got a negative view")
        return operator(*(a.resolve_neg() if isinstance(a, Tensor) else a for a in arguments))

    torch.library.impl(f"ise_fast::{name}", "Negative", resolved)
