"""csrc/math/exp.h against NumPy in float64."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

ROOT = Path(__file__).parents[2]
SOURCE = """
#include "csrc/math/exp.h"
extern "C" void run(const float* t, float* out, long n) {
  for (long i = 0; i < n; ++i) out[i] = ise_fast::exp_nonpositive(t[i]);
}
"""
Exp = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@pytest.fixture(scope="module")
def exp(tmp_path_factory: pytest.TempPathFactory) -> Exp:
    compiler = shutil.which("g++") or shutil.which("c++")
    assert compiler, "the C++ compiler that built the package is gone"
    library = tmp_path_factory.mktemp("exp") / "exp.so"
    command = [compiler, "-std=c++20", "-O2", "-ffp-contract=off", "-shared", "-fPIC", "-I", str(ROOT)]
    subprocess.run([*command, "-x", "c++", "-", "-o", str(library)], input=SOURCE, text=True, check=True)
    function = ctypes.CDLL(str(library)).run

    def run(t: NDArray[np.float32]) -> NDArray[np.float32]:
        out = np.empty_like(t)
        function(t.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p), ctypes.c_long(t.size))
        return out

    return run


@pytest.mark.parametrize(("low", "high"), [(-4.0, 0.0), (-87.0, 0.0), (-1e-3, 0.0), (-104.0, -87.0), (-1e-38, 0.0)])
def test_error_in_units_in_the_last_place(exp: Exp, low: float, high: float) -> None:
    t = np.linspace(low, high, 1_000_001).astype(np.float32)
    truth = np.exp(t.astype(np.float64))
    unit = np.spacing(truth.astype(np.float32)).astype(np.float64)
    assert (np.abs(exp(t) - truth) / unit).max() <= 1.1


def test_ends(exp: Exp) -> None:
    t = np.array([0.0, -0.0, -104.0, -104.1, -200.0, -3e38, -np.inf], np.float32)
    assert exp(t).tolist() == [1.0, 1.0, *np.exp(t[2:3]).tolist(), 0.0, 0.0, 0.0, 0.0]


def test_never_rises_as_the_argument_falls(exp: Exp) -> None:
    """Every seventh float32 between -0.25 and -4, the least exponent that unit rows give."""
    bits = np.arange(np.float32(-0.25).view(np.uint32), np.float32(-4).view(np.uint32) + 1, 7, dtype=np.uint32)
    assert (np.diff(exp(bits.view(np.float32))) <= 0).all()
