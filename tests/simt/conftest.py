"""Fixtures of the host tests of the CUDA kernels: the built library, and the schedules to run under."""

from __future__ import annotations

import ctypes
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from simt.build import LAUNCHED, VARIANT, build, build_library
from torch import Tensor
from turns import cases_of_tests, in_turn, leave_out

import ise_fast.ops  # noqa: F401  registers torch.ops.ise_fast, the truth here

ON_GPU = os.environ.get(VARIANT) == "cuda"
ON_PTX = os.environ.get(VARIANT) == "ptx"  # nvcc's code, interpreted (tests/ptx)


@pytest.fixture(scope="session")
def library() -> Iterator[ctypes.CDLL]:
    """The kernels for the host, built and loaded. In the end, the names of those that were launched go into the file
    that LAUNCHED names.
    """
    variant = os.environ.get(VARIANT, "race")
    path = build("ise_fast_ptx") / "libise_fast_ptx.so" if ON_PTX else build_library(variant)
    torch.ops.load_library(str(path))
    loaded = ctypes.CDLL(str(path))
    yield loaded
    if LAUNCHED in os.environ:
        loaded.simt_launched.restype = ctypes.c_char_p
        Path(os.environ[LAUNCHED]).write_bytes(loaded.simt_launched())


@pytest.fixture(scope="session")
def set_schedule(request: pytest.FixtureRequest) -> Callable[[int], None]:
    """The function that chooses the order of threads and blocks."""
    if ON_GPU:
        return lambda seed: None
    function = request.getfixturevalue("library").simt_set_schedule
    function.argtypes = [ctypes.c_uint64]
    function.restype = None
    return function


@pytest.fixture
def set_products(library: ctypes.CDLL) -> Iterator[Callable[..., None]]:
    """set_products(...): the arithmetic of the library's products (cublas.h), until the test ends."""

    def choose(tensor_float_32: bool = False, guard_bits: int = -1, failure: int = 0) -> None:
        library.simt_set_products(tensor_float_32, guard_bits, failure)

    yield choose
    choose()


class OnGPU:
    """torch.ops.ise_fast on a GPU, called with CPU tensors: the same tests under compute-sanitizer (gpu_check.sh)."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        operator = getattr(torch.ops.ise_fast, name).default

        def call(*arguments: Any, **named: Any) -> Any:
            moved = [a.cuda() if isinstance(a, Tensor) else a for a in arguments]
            named = {name: a.cuda() if isinstance(a, Tensor) else a for name, a in named.items()}
            results = operator(*moved, **named)
            for ours, theirs, schema in zip(arguments, moved, operator._schema.arguments, strict=False):
                if schema.alias_info is not None and schema.alias_info.is_write:
                    ours.copy_(theirs)
            if isinstance(results, Tensor):
                return results.cpu()
            return results and tuple(result.cpu() for result in results)

        return call


# Devices that the host poses as, one a schedule: tensors elsewhere than on the current device, many multiprocessors, no
# second dimension of blocks (it ends at 65,535, and nobody tests so many rows).
DEVICES: dict[int, dict[str, int]] = {
    1: {"of_tensors": 1, "multiprocessors": 1},
    2: {"multiprocessors": 132},
    3: {"most_blocks_across": 1},
}

# Orders are what the race detector needs many of; addresses hardly depend on them, but on the shape of the grid. The
# ascending one (0) is left to test_devices.py and the others with a schedule of their own.
SCHEDULES = {"cuda": [0], "asan": [3], "ptx": [0]}.get(os.environ.get(VARIANT, ""), [1, 2, 3])
ALL_SCHEDULES = "ISE_FAST_SIMT_ALL_SCHEDULES"  # environment variable: every case under every schedule


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Every test runs under every schedule, but each of its cases under one, in turn; the first also under those that
    come to no other. AddressSanitizer sees half of the cases: on nvcc's code, all have their addresses looked at.
    """
    if ALL_SCHEDULES in os.environ:
        return
    left_out = set()
    for cases in cases_of_tests(item for item in items if "simt" in parameters(item)):
        under: defaultdict[int, list[pytest.Item]] = defaultdict(list)
        for item in cases:
            under[parameters(item)["simt"]].append(item)
        turns = 2 if os.environ.get(VARIANT) == "asan" else len(under)
        left_out |= set(cases) - in_turn(list(under.values()), turns)
    leave_out(left_out, items, config)


def parameters(item: pytest.Item) -> dict[str, Any]:
    return item.callspec.params if hasattr(item, "callspec") else {}


@pytest.fixture(params=SCHEDULES, ids=lambda seed: f"schedule{seed}")
def simt(request: pytest.FixtureRequest, set_schedule: Callable[[int], None]) -> Any:
    """torch.ops.ise_fast_simt, the CUDA operators on CPU tensors, under several schedules (0: ascending order)."""
    set_schedule(request.param)
    if ON_GPU:
        return OnGPU()
    request.getfixturevalue("pretend")(**DEVICES.get(request.param, {}))
    return torch.ops.ise_fast_ptx if ON_PTX else torch.ops.ise_fast_simt


@pytest.fixture
def pretend(library: ctypes.CDLL) -> Iterator[Callable[..., None]]:
    """pretend(...): the GPU that the host poses as (pretended.h), until the test ends."""
    unlimited = 2**62

    def choose(
        multiprocessors: int = 4,
        memory: int = 64 << 20,
        largest_allocation: int = unlimited,
        most_numbers: int = unlimited,
        most_blocks_across: int = 65535,
        of_tensors: int = 0,
    ) -> None:
        library.simt_set_device(
            multiprocessors,
            ctypes.c_int64(memory),
            ctypes.c_int64(largest_allocation),
            ctypes.c_int64(most_numbers),
            most_blocks_across,
            of_tensors,
        )

    yield choose
    choose()
