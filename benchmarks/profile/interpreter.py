"""Runs a Python program beside the interpreter of nvcc's PTX, which tests/ptx holds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NVCC = os.environ.get("CUDACXX") or shutil.which("nvcc")
NO_NVCC = "there is no nvcc here: nothing to interpret"


class NoInterpreter(RuntimeError):
    """The interpreter cannot be built or run here."""


def folder() -> Path:
    """Where the interpreter's libraries are; builds them if a source has changed."""
    if not NVCC:
        raise NoInterpreter(NO_NVCC)
    command = [sys.executable, str(ROOT / "tests" / "simt" / "build.py"), "ise_fast_ptx"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise NoInterpreter(done.stdout + done.stderr)
    return Path(done.stdout.split()[-1])


def run(*arguments: str | Path, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python ARGUMENTS` with the interpreter's allocator loaded before anything else, which it needs."""
    changed = {
        **os.environ,
        **environment,
        "ISE_FAST_SIMT_VARIANT": "ptx",
        "LD_PRELOAD": str(folder() / "libise_fast_ptx_allocations.so"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
    }
    command = [sys.executable, *(str(argument) for argument in arguments)]
    return subprocess.run(command, cwd=cwd, env=changed, capture_output=True, text=True)
