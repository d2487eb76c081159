"""Loads the compiled operators into torch.ops.ise_fast: CPU always, CUDA beside a CUDA build of torch."""

from __future__ import annotations

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


def build_info() -> dict[str, str]:
    """How the libraries were built: compiler, nvcc version or "none", GPU architectures, lowest torch."""
    return dict(_C.build_info())
