"""Fixtures of the host tests of the CUDA kernels: the built library, and the schedules to run under."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from simt.build import LAUNCHED, VARIANT, build_library
from torch import Tensor

import ise_fast.ops  # noqa: F401  registers torch.ops.ise_fast, the truth here

ON_GPU = os.environ.get(VARIANT) == "cuda"


@pytest.fixture(scope="session")
def set_schedule() -> Iterator[Callable[[int], None]]:
    """Builds and loads the kernels for the host; gives the function that chooses the order of threads and blocks.

    The names of the kernels that were launched go into the file that LAUNCHED names.
    """
    if ON_GPU:
        yield lambda seed: None
        return
    path = build_library(os.environ.get(VARIANT, "race"))
    torch.ops.load_library(str(path))
    library = ctypes.CDLL(str(path))
    library.simt_set_schedule.argtypes = [ctypes.c_uint64]
    library.simt_set_schedule.restype = None
    yield library.simt_set_schedule
    if LAUNCHED in os.environ:
        library.simt_launched.restype = ctypes.c_char_p
        Path(os.environ[LAUNCHED]).write_bytes(library.simt_launched())


class OnGPU:
    """torch.ops.ise_fast on a GPU, called with CPU tensors: the same tests under compute-sanitizer (gpu_check.sh)."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        operator = getattr(torch.ops.ise_fast, name).default

        def call(*arguments: Any) -> Any:
            moved = [a.cuda() if isinstance(a, Tensor) else a for a in arguments]
            results = operator(*moved)
            for ours, theirs, schema in zip(arguments, moved, operator._schema.arguments, strict=False):
                if schema.alias_info is not None and schema.alias_info.is_write:
                    ours.copy_(theirs)
            if isinstance(results, Tensor):
                return results.cpu()
            return results and tuple(result.cpu() for result in results)

        return call


# Orders are what the race detector needs many of; addresses hardly depend on them.
SCHEDULES = [0] if ON_GPU else [0, 3] if os.environ.get(VARIANT) == "asan" else [0, 1, 2, 3]


@pytest.fixture(params=SCHEDULES, ids=lambda seed: f"schedule{seed}")
def simt(request: pytest.FixtureRequest, set_schedule: Callable[[int], None]) -> Any:
    """torch.ops.ise_fast_simt, the CUDA operators on CPU tensors, under several schedules (0: ascending order)."""
    set_schedule(request.param)
    return OnGPU() if ON_GPU else torch.ops.ise_fast_simt
