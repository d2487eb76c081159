"""Every operator takes its own valid arguments (tests/fuzzing), and its fake rule tells what it gives."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from fuzzing import arguments
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

OPERATORS = arguments.operators()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", sorted(arguments.EXAMPLES))
def test_fake_results_look_like_the_real_ones(name: str, seed: int) -> None:
    made = arguments.example(name, random.Random(seed))
    mode = FakeTensorMode(shape_env=ShapeEnv())
    fake = {k: mode.from_tensor(v, static_shapes=True) if isinstance(v, Tensor) else v for k, v in made.items()}
    with mode:
        told = as_list(OPERATORS[name](**fake))
    for ours, theirs in zip(as_list(OPERATORS[name](**made)), told, strict=True):
        assert (ours.dtype, ours.device, ours.dim()) == (theirs.dtype, theirs.device, theirs.dim())
        sizes = zip(ours.shape, theirs.shape, strict=True)
        assert all(a == b for a, b in sizes if isinstance(b, int)), (ours.shape, theirs.shape)


def as_list(results: Any) -> list[torch.Tensor]:
    return [results] if isinstance(results, Tensor) else list(results or ())
