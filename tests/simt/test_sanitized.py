"""The host tests of the CUDA kernels once more, under AddressSanitizer and UndefinedBehaviorSanitizer; and no kernel is
never launched.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from simt.build import KERNEL_TESTS, LAUNCHED, VARIANT, build_library


def sanitizer_runtime() -> str | None:
    """The libraries to load before Python for a run under AddressSanitizer; None if the compiler has none."""
    names = ("libasan.so", "libubsan.so", "libstdc++.so.6")
    paths = [
        subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
        for name in names
    ]
    return ":".join(paths) if all(Path(path).is_absolute() for path in paths) else None


class Sanitized(NamedTuple):
    """The run, and the kernels that it launched."""

    run: subprocess.CompletedProcess[str]
    launched: set[str]


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Sanitized:
    libraries = sanitizer_runtime()
    assert libraries, "g++ has no AddressSanitizer"
    build_library("asan")
    launched = tmp_path_factory.mktemp("launched") / "kernels"
    environment = {
        **os.environ,
        VARIANT: "asan",
        LAUNCHED: str(launched),
        "LD_PRELOAD": libraries,
        # Python itself leaks. The CPU operators beside them have an operator new of their own, and torch deletes.
        # A test asks for more memory than there is.
        "ASAN_OPTIONS": "detect_leaks=0:alloc_dealloc_mismatch=0:allocator_may_return_null=1",
        "OMP_NUM_THREADS": "1",
    }
    files = (*KERNEL_TESTS, "test_blocks.py", "test_devices.py")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-s", "-k", "not near_the_end_of_float32", *files],
        cwd=Path(__file__).parent,
        env=environment,
        capture_output=True,
        text=True,
    )
    names = launched.read_text() if launched.exists() else ""
    return Sanitized(run, set(re.findall(r"^\(?(?:\w+::)*(\w+)", names, re.MULTILINE)))


def test_address_sanitizer(sanitized: Sanitized) -> None:
    assert sanitized.run.returncode == 0, sanitized.run.stdout + sanitized.run.stderr


def entries() -> set[str]:
    """The names of all kernels in csrc/cuda; one name for all instances of a template."""
    sources = [path.read_text() for path in (Path(__file__).parents[2] / "csrc" / "cuda").glob("*.cu*")]
    pattern = re.compile(r"__global__\s+(?:static\s+)?void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\(")
    found = [pattern.findall(text) for text in sources]
    assert sum(map(len, found)) == sum(text.count("__global__") for text in sources)
    return {name for names in found for name in names}


def test_every_kernel_was_launched(sanitized: Sanitized) -> None:
    """A kernel that no test launches may do anything."""
    assert {"dense_rows", "hash_rows", "select_candidates"} <= entries()
    assert entries() - sanitized.launched == set()
