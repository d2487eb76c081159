"""Fixtures of the host tests of the CUDA kernels: the built library, and the schedules to run under."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

import pytest
import torch
from simt.build import VARIANT, build_library

import ise_fast.ops  # noqa: F401  registers torch.ops.ise_fast, the truth here


@pytest.fixture(scope="session")
def set_schedule() -> Callable[[int], None]:
    """Builds and loads the kernels for the host; gives the function that chooses the order of threads and blocks."""
    library = build_library(os.environ.get(VARIANT, "race"))
    torch.ops.load_library(str(library))
    function = ctypes.CDLL(str(library)).simt_set_schedule
    function.argtypes = [ctypes.c_uint64]
    function.restype = None
    return function


@pytest.fixture(params=[0, 1, 2, 3], ids=lambda seed: f"schedule{seed}")
def simt(request: pytest.FixtureRequest, set_schedule: Callable[[int], None]) -> object:
    """torch.ops.ise_fast_simt, the CUDA operators on CPU tensors, under several schedules (0: ascending order)."""
    set_schedule(request.param)
    return torch.ops.ise_fast_simt
