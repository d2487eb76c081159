"""Every CUDA kernel, run on the host, against the CPU operator: one function per operator, small odd sizes.

`simt.X` is csrc/cuda/X.cu on CPU tensors; docs/kernels.md says how that works and what it cannot show. The last test
runs all of this file again under AddressSanitizer and UndefinedBehaviorSanitizer.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from simt.build import VARIANT
from torch import Tensor

Rows = Callable[..., Tensor]


def assert_same(ours: Any, expected: Any) -> None:
    """Equal bits: shapes, dtypes and every value."""
    for mine, theirs in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(("rows", "clusters", "d", "k"), [(1, 2, 1, 1), (5, 33, 31, 3), (7, 9, 65, 8), (0, 4, 8, 2)])
def test_nearest_centroids(simt: Any, unit_rows: Rows, rows: int, clusters: int, d: int, k: int) -> None:
    features, centroids = unit_rows(rows, d), unit_rows(clusters, d, seed=1)
    centroids[clusters // 2] = centroids[0]  # a tie
    labels = torch.arange(rows) % clusters
    assert_same(
        simt.nearest_centroids(features, centroids, labels, k),
        torch.ops.ise_fast.nearest_centroids(features, centroids, labels, k),
    )


def sanitizer_runtime() -> str | None:
    """The libraries to load before Python for a run under AddressSanitizer; None if the compiler has none."""
    names = ("libasan.so", "libubsan.so", "libstdc++.so.6")
    paths = [
        subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
        for name in names
    ]
    return ":".join(paths) if all(Path(path).is_absolute() for path in paths) else None


@pytest.mark.skipif(VARIANT in os.environ, reason="this is the run under AddressSanitizer, or one on a GPU")
def test_address_sanitizer() -> None:
    libraries = sanitizer_runtime()
    assert libraries, "g++ has no AddressSanitizer"
    environment = {
        **os.environ,
        VARIANT: "asan",
        "LD_PRELOAD": libraries,
        "ASAN_OPTIONS": "detect_leaks=0",  # Python itself leaks
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-s", "test_kernels.py", "test_blocks.py"],
        cwd=Path(__file__).parent,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
