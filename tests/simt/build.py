"""Builds what the tests in this folder run: the CUDA kernels for the host."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "simt"
SIMT = ROOT / "tests" / "simt"
#: together a test for each operator
KERNEL_TESTS = ("test_kernels.py", "test_shard_kernels.py", "test_prefixes.py", "test_candidate_lists.py")
VARIANT = "ISE_FAST_SIMT_VARIANT"  # environment variable: which build the tests load
LAUNCHED = "ISE_FAST_SIMT_LAUNCHED"  # environment variable: the file that receives the names of the kernels launched


def tool_environment() -> dict[str, str]:
    """The environment with this Python's own scripts (cmake, ninja) first, and no sanitizer under the compilers."""
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    return {**os.environ, "PATH": path, "LD_PRELOAD": ""}


def run(*command: str | Path) -> None:
    """Run a command; on failure show all it said."""
    done = subprocess.run(
        [str(part) for part in command],
        env=tool_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, f"{' '.join(str(part) for part in command)}\n{done.stdout}"


def build(*targets: str) -> Path:
    """Build targets of tests/simt/CMakeLists.txt; returns the folder they are in."""
    import pybind11
    import torch

    BUILD.mkdir(parents=True, exist_ok=True)
    with open(BUILD / ".lock", "w") as lock:  # several pytest processes may want it at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        run(
            *("cmake", "-S", ROOT, "-B", BUILD, "-G", "Ninja", "-DISE_FAST_CUDA=OFF"),
            f"-DISE_FAST_TORCH_DIR={Path(torch.__file__).parent}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
        )
        run("cmake", "--build", BUILD, "--parallel", str(os.cpu_count() or 1), "--target", *targets)
    return BUILD / "simt"


def build_library(variant: str) -> Path:
    """csrc/cuda for the host as a library that registers torch.ops.ise_fast_simt; variant: race or asan."""
    return build(f"ise_fast_simt_{variant}") / f"libise_fast_simt_{variant}.so"


if __name__ == "__main__":  # python tests/simt/build.py TARGET...
    print(build(*sys.argv[1:]))
