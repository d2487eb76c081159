"""Fixtures for all tests: the device (CUDA when there is one), torch's threads and seeded unit features."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Before torch is loaded: threads that wait for work sleep. Spinning, the pools of the training and of the prefetching
# thread hold the cores from each other, and a run of a second takes six (tests of time are the benchmarks' business).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch
from forked import forking
from torch import Tensor
from turns import cases_of_tests, in_turn, leave_out


def pytest_configure() -> None:
    """The sanitizers' run must test the library that was built for it, and not the one of the checkout."""
    expected = os.environ.get("ISE_FAST_TESTED")
    if expected is not None:
        import ise_fast

        assert Path(ise_fast.__file__).is_relative_to(expected), f"{ise_fast.__file__} is not in {expected}"


# Each in one process for long: in the end it would keep a core waiting.
LONG = (
    "simt/test_sanitized.py",
    "simt/test_kernels.py",
    "ptx/test_budgets.py",
    "packaging/test_install.py",
    "engine/test_methods.py",
    "engine/test_distributed.py",
    "test_examples.py",
    "ops/test_fuzz.py",
    "ptx/test_kernels_ptx.py",
    "simt/test_prefixes.py",
    "sharded/test_equal_bits.py",
    "benchmarks/test_benchmarks.py",
    "engine/test_presets.py",
    "test_joined_sources.py",
)


# Tests of operators that the sanitizers' run leaves out. opcheck, torch.compile and the losses' rules, which trace, run
# Python, not our C++, and are slow there, as is what happens beyond a limit on memory; the library there has no CUDA.
UNSANITIZED = ("opcheck", "compile", "test_rules", "sklearn", "memory_limit", "cuda")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--sanitized",
        choices=["only", "not"],
        help="only what tests/sanitize.sh runs, a third of the cases of each operator's tests; or none of these tests",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Files of long tests come first (with --no-loadscope-reorder also where several processes share the files)."""
    here = Path(__file__).parent
    first = {here / name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: first.get(item.path, len(LONG)))
    asked = config.getoption("--sanitized")
    if asked is not None:
        tests = [item for item in items if here / "ops" in item.path.parents]
        tests = [item for item in tests if not any(word in item.nodeid for word in UNSANITIZED)]
        third = {item for cases in cases_of_tests(tests) for item in in_turn([cases], 3)}
        leave_out(set(items) - third if asked == "only" else set(tests), items, config)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """What a test printed goes from one process to another as UTF-8; a file name in it need not be any."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(params=["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Every operator test runs on the CPU, and on a GPU where there is one."""
    return torch.device(request.param)


@pytest.fixture
def restore_threads() -> Iterator[None]:
    """A test may set torch's threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def processes() -> Any:
    """A context of multiprocessing whose processes are forked from one that has imported torch (forked.py)."""
    return forking()


@pytest.fixture
def unit_rows() -> Callable[..., Tensor]:
    """unit_rows(n, d, seed=0): n random unit rows."""

    def make(n: int, d: int, seed: int = 0) -> Tensor:
        rows = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return torch.nn.functional.normalize(rows, dim=1).float()

    return make
