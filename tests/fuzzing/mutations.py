"""What the fuzzer does to valid arguments: one change of one of them."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor

from fuzzing.arguments import Arguments
from ise_fast.types import CSRGraph, Groups

HUGE = [2**63 - 1, -(2**63), 2**62, 2**31, 2**31 - 1, -1, 0, 1, 10**9]
SIZES = {"groups"}  # of the answer: gigabytes are no fault
FLOATS = [float("nan"), float("inf"), -float("inf"), -1.0, -0.0, 0.0, 1e-45, 1e-320, 1e-39, 1e38, 1e300, 1.0, 2.0]
DTYPES = [torch.float32, torch.float64, torch.float16, torch.int64, torch.int32, torch.bool, torch.complex64]


def _planted(x: Tensor, rng: random.Random, value: Any) -> Tensor:
    x = x.clone(memory_format=torch.contiguous_format)
    if x.numel():
        x.view(-1)[rng.randrange(x.numel())] = value
    return x


def _freed(x: Tensor) -> Tensor:
    x = x.clone()
    x.untyped_storage().resize_(0)
    return x


def _shape(x: Tensor, rng: random.Random) -> Tensor:
    changes = [x[None], x.flatten(), x.new_zeros(0), x.new_zeros(()), x.new_ones(1), torch.cat([x[None], x[None]])]
    if x.dim():
        changes += [x[:0], x[:-1], torch.cat([x, x]), x[..., :0], x[..., :1], x.transpose(0, -1)]
    return rng.choice(changes)


def _strided(x: Tensor, rng: random.Random) -> Tensor:
    """The same numbers, otherwise stored."""
    if not x.dim():
        return x
    spread = torch.stack([x, x], -1)[..., 0]
    return rng.choice([spread, x.transpose(0, -1).contiguous().transpose(0, -1), torch.cat([x, x])[len(x) :]])


def mutate_tensor(x: Tensor, kind: str, rng: random.Random) -> Tensor:
    """One change of a tensor; a new tensor."""
    if kind == "shape":
        return _shape(x, rng)
    if kind == "dtype":
        return x.to(rng.choice(DTYPES))
    if kind == "strides":
        return _strided(x, rng)
    if kind == "expanded" and not x.is_neg():  # of both together torch refuses to take the sign away
        return x[:1].expand(x.shape) if x.dim() and len(x) else x
    if kind == "value" and x.is_floating_point():
        numbers = [float("nan"), float("inf"), -1.0, 0.0, 1e-45, 1e-30, 3e38, -3e38, 1e19]
        return _planted(x, rng, rng.choice(numbers))
    if kind == "value":
        kinds = {torch.int64: HUGE, torch.int32: [-1, 0, 1, 2**31 - 1]}
        return _planted(x, rng, rng.choice(kinds.get(x.dtype, [0, 1, 255])))
    if kind == "scale" and x.is_floating_point():
        return x * rng.choice([0.0, 1e-45, 1e-38, 1e-20, 1e10, 1e19, 1e30, 3e38])
    if kind == "freed":
        return _freed(x)
    if kind == "negative" and x.is_floating_point() and 0 not in x.stride():
        return torch._neg_view(-x)
    if kind == "zero" and x.is_floating_point():
        return torch._efficientzerotensor(x.shape, dtype=x.dtype)
    return x


KINDS = ("shape", "dtype", "strides", "expanded", "value", "value", "scale", "freed", "negative", "zero", "foreign")


def memory_is_there(x: Tensor) -> bool:
    """torch itself may be asked for the numbers: dense, on the CPU, and not freed."""
    if x.device.type != "cpu" or x.layout is not torch.strided or x._is_zerotensor():
        return False
    return not x.numel() or bool(x.untyped_storage().nbytes())


def mutate(arguments: Arguments, rng: random.Random) -> tuple[Arguments, bool]:
    """One argument changed, and whether torch's dispatcher, not the operator, may have to refuse it."""
    name = rng.choice(list(arguments))
    value, foreign = _mutate_value(arguments[name], rng)
    if name in SIZES and isinstance(value, int):
        value = min(value, 1000)
    return {**arguments, name: value}, foreign


def _mutate_value(value: Any, rng: random.Random) -> tuple[Any, bool]:
    kind = rng.choice(KINDS)
    if isinstance(value, Tensor):
        if not memory_is_there(value):
            return value, False
        if kind == "foreign":
            others = [None, "text", value.to("meta"), value.to_sparse() if value.dim() else value.to("meta")]
            return rng.choice(others), True
        return mutate_tensor(value, kind, rng), kind == "zero"
    if isinstance(value, CSRGraph):
        parts, foreign = mutate({"indptr": value.indptr, "indices": value.indices, "values": value.values}, rng)
        whole = all(isinstance(part, Tensor) for part in parts.values())
        return (CSRGraph(**parts), foreign) if whole else (None, True)
    if isinstance(value, Groups):
        parts, foreign = mutate(value._asdict(), rng)
        return Groups(**parts), foreign
    if isinstance(value, bool) or value is None:
        return value, False
    if isinstance(value, int):
        return rng.choice(HUGE), False
    if isinstance(value, float):
        return rng.choice(FLOATS), False
    if isinstance(value, str):
        return rng.choice(["", "hamming", "x" * 1000]), False
    return value, False
