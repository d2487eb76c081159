"""Tensors in main memory that say they are on another device, with the CUDA kernels' host build for operators there.

What puts a tensor of the CPU beside one of them fails, as it would on a GPU: so a program can be tried for the device
of each tensor without one. The device is called meta, since torch would look for hardware at any other name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

ELSEWHERE = torch.device("meta")
#: Operators that take tensors of two devices, or none that matter.
COPIES = ("copy_", "_to_copy")


class ThereTensor(Tensor):
    """A tensor that says it is elsewhere."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> ThereTensor:
        out: Any = Tensor._make_wrapper_subclass(
            cls, inner.shape, inner.stride(), inner.storage_offset(), dtype=inner.dtype, device=ELSEWHERE
        )
        out.inner = inner
        return out  # type: ignore[no-any-return]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return call(func, args, kwargs or {})


class Functions(TorchFunctionMode):
    """Two functions that go past the dispatcher."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.tensor and torch.device(kwargs.get("device") or "cpu") == ELSEWHERE:
            return ThereTensor(func(*args, **{**kwargs, "device": "cpu"}))
        if func is Tensor.tolist and isinstance(args[0], ThereTensor):
            return args[0].inner.tolist()
        return func(*args, **kwargs)


class Operators(TorchDispatchMode):
    """All the others."""

    def __init__(self, operators: Any) -> None:
        super().__init__()
        self.operators = operators

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return call(func, args, kwargs or {}, self.operators)


@contextmanager
def elsewhere(operators: Any) -> Iterator[None]:
    """While it lasts, tensors may be made elsewhere, and moved there and back; `operators` are those of ise_fast."""
    with Functions(), Operators(operators):
        yield


def call(func: Any, args: Any, kwargs: dict[str, Any], operators: Any = None) -> Any:
    """What torch would do with the tensors inside, wrapped again where it would be elsewhere."""
    name = func._schema.name.split("::")
    tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
    there = any(isinstance(tensor, ThereTensor) for tensor in tensors)
    if there and name[1] not in COPIES:
        strangers = [tuple(t.shape) for t in tensors if not isinstance(t, ThereTensor) and t.dim() > 0]
        if strangers:
            raise AssertionError(f"{name[1]}: expected all tensors on one device, got {strangers} on the CPU")
    known = {id(tensor.inner): tensor for tensor in tensors if isinstance(tensor, ThereTensor)}
    args, kwargs = tree_map_only(ThereTensor, lambda tensor: tensor.inner, (args, kwargs))
    device = kwargs.get("device")
    if device is not None:
        there = torch.device(device).type == ELSEWHERE.type
        kwargs = {**kwargs, "device": "cpu"}
    if name[1] == "copy_":
        there = isinstance(tensors[0], ThereTensor)
    if there and name[0] == "ise_fast":
        func = getattr(operators, name[1])
    found = func(*args, **kwargs)
    if name[1] == "_to_copy" and device is not None and any(found is arg for arg in args):
        found = found.clone()
    return (
        tree_map_only(Tensor, lambda t: known[id(t)] if id(t) in known else ThereTensor(t), found) if there else found
    )
