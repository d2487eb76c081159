"""Loads the compiled operators into torch.ops.ise_fast: CPU always, CUDA beside a CUDA build of torch."""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch

try:
    from ise_fast import _C
except ImportError as error:
    raise ImportError(
        "the compiled operators of ise_fast could not be loaded; build them with 'python setup.py build_ext' in a "
        f"checkout or 'pip install --no-build-isolation .' (ise_fast.reference works without). Cause: {error}"
    ) from error

_CUDA_LIBRARY = Path(__file__).parent / "libise_fast_cuda.so"

#: Whether the CUDA operators are registered (a GPU may still be missing).
has_cuda_operators = torch.version.cuda is not None and _CUDA_LIBRARY.exists()
if has_cuda_operators:
    torch.ops.load_library(str(_CUDA_LIBRARY))
    _cuda = ctypes.CDLL(str(_CUDA_LIBRARY))
    for _set_hook, _hook in (
        (_cuda.ise_fast_set_memory_hook, _C.memory_hook),
        (_cuda.ise_fast_set_interrupt_check, _C.interrupt_hook),
    ):
        _set_hook.argtypes, _set_hook.restype = [ctypes.c_void_p], None
        _set_hook(_hook())


def ask_torch_for_memory(size: int, device: int, last: bool) -> None:
    """Called from C++ when memory ran out there, where torch's error has lost its text and type: raises it here.

    Args:
        size: bytes that were asked for.
        device: index of the CUDA device; -1 is the CPU (the tests' host build).
        last: raise also if torch has the memory now.

    Raises:
        torch.OutOfMemoryError: torch's own.
    """
    torch.empty(size, dtype=torch.uint8, device="cpu" if device < 0 else f"cuda:{device}")
    if last:
        raise torch.OutOfMemoryError(f"out of memory: asked for {size / 2**30:.2f} GiB ({size} bytes)")


def build_info() -> dict[str, str]:
    """How the libraries were built: compiler, nvcc version or "none", GPU architectures, lowest torch."""
    return dict(_C.build_info())
