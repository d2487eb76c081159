"""Fixtures for all tests: the device (CUDA when there is one) and seeded unit features."""

from __future__ import annotations

from collections.abc import Callable

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
