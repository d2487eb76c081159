"""python -m benchmarks.profile.runner FOLDER: the process in which the interpreter runs (counts.py starts it)."""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path
from typing import Any

import torch

import ise_fast.ops  # noqa: F401  registers torch.ops.ise_fast, which makes the inputs
from benchmarks.profile import workloads
from benchmarks.profile.interpreter import folder

#: what the interpreter poses as: an H100
MULTIPROCESSORS, MEMORY = 132, 80 << 30
UNLIMITED = 2**62


class Called:
    """The operators of the interpreter, and which of them were called."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        self.names.add(name)
        return getattr(torch.ops.ise_fast_ptx, name)


def main(work: Path) -> None:
    library = folder() / "libise_fast_ptx.so"
    torch.ops.load_library(str(library))
    interpreter = ctypes.CDLL(str(library))
    interpreter.simt_set_device.argtypes = [ctypes.c_int, *[ctypes.c_int64] * 3, ctypes.c_int, ctypes.c_int]
    interpreter.ptx_set_executes.argtypes = [ctypes.c_bool]
    wanted = json.loads((work / "wanted.json").read_text())
    interpreter.ptx_set_executes(not wanted["dry"])
    for i, (operator, shape) in enumerate(wanted["runs"]):
        workload = workloads.WORKLOADS[operator]
        most = workload.most_numbers(shape) if workload.most_numbers and not wanted["dry"] else UNLIMITED
        interpreter.simt_set_device(MULTIPROCESSORS, MEMORY, 0, most, 0, 0)
        call = workload.prepare(shape, wanted["dry"])
        interpreter.ptx_clear()
        called = Called()
        result = call(called)
        path = work / f"{i}.json"
        interpreter.ptx_write_counts(str(path).encode())
        path.write_text(json.dumps({**json.loads(path.read_text()), "operators": sorted(called.names)}))
        del result


if __name__ == "__main__":
    main(Path(sys.argv[1]))
