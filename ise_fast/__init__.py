"""Fused C++/CUDA operators and training for unsupervised re-identification with ISE and Cluster Contrast.

`import ise_fast` is cheap: the parts below are loaded when they are first named.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PARTS = ("cluster", "data", "engine", "models", "nn", "ops", "reference", "types")
_NAMES = {"load_model": "ise_fast.engine.inference"}

if TYPE_CHECKING:
    from ise_fast import cluster, data, engine, models, nn, ops, reference, types
    from ise_fast.engine.inference import load_model


def __getattr__(name: str) -> Any:
    if name in _PARTS:
        return importlib.import_module(f"ise_fast.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'ise_fast' has no attribute {name!r}; it has {', '.join(__dir__())}")


def __dir__() -> list[str]:
    return sorted([*_PARTS, *_NAMES, "__version__"])


__all__ = ["__version__", "cluster", "data", "engine", "load_model", "models", "nn", "ops", "reference", "types"]
