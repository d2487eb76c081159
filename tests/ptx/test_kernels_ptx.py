"""What nvcc made of every kernel gives the results that the host's compiler gives: a second proof."""

from __future__ import annotations

from pathlib import Path

import pytest
from simt.build import KERNEL_TESTS, LAUNCHED, SIMT

from benchmarks.profile.interpreter import NO_NVCC, NVCC, run

TESTS = (*KERNEL_TESTS, "test_blocks.py")

pytestmark = pytest.mark.skipif(not NVCC, reason=NO_NVCC)


def test_every_kernel_passes_its_tests_as_nvcc_compiled_it(tmp_path: Path) -> None:
    """In order and in random interleavings; every access, barrier and collective is checked (docs/kernels.md)."""
    names = tmp_path / "launched"
    done = run("-m", "pytest", "-p", "no:cacheprovider", "-s", *TESTS, cwd=SIMT, **{LAUNCHED: str(names)})
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"settle", "hash_rows", "update_clusters"} <= set(names.read_text().splitlines())


def test_the_interpreter_knows_every_instruction(tmp_path: Path) -> None:
    program = """
import ctypes, sys, torch
from benchmarks.profile.interpreter import folder
ctypes.CDLL(str(folder() / "libise_fast_ptx.so")).ptx_write_kernels(sys.argv[1].encode())
"""
    done = run("-c", program, tmp_path / "kernels")
    assert done.returncode == 0, done.stdout + done.stderr
    kernels = [line.split("\t") for line in (tmp_path / "kernels").read_text().splitlines()]
    assert "settle" in {name for _, name, _ in kernels}
    assert [(name, refusal) for _, name, refusal in kernels if refusal] == []
