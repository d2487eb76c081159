"""Fixtures for all tests: the device (CUDA when there is one) and seeded unit features."""

from __future__ import annotations

import os
from collections.abc import Callable

# Before torch is loaded: threads that wait for work sleep. Spinning, the pools of the training and of the prefetching
# thread hold the cores from each other, and a run of a second takes six (tests of time are the benchmarks' business).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch
from torch import Tensor


@pytest.fixture(params=["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Every operator test runs on the CPU, and on a GPU where there is one."""
    return torch.device(request.param)


@pytest.fixture
def unit_rows() -> Callable[..., Tensor]:
    """unit_rows(n, d, seed=0): n random unit rows."""

    def make(n: int, d: int, seed: int = 0) -> Tensor:
        rows = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return torch.nn.functional.normalize(rows, dim=1).float()

    return make
