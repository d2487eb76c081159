"""What a checkpoint must hold, so that a file that lacks something is refused in one line before anything is built."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ise_fast.engine.errors import UsageError


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_record(value: object) -> bool:
    return isinstance(value, dict) and _is_count(value.get("epoch"))


def _is_best(value: object) -> bool:
    return value is None or (isinstance(value, dict) and _is_record(value) and isinstance(value.get("mAP"), float))


def _is_labels(value: object) -> bool:
    return value is None or (isinstance(value, Tensor) and value.dim() == 1 and value.dtype == torch.int64)


def _is_losses(value: object) -> bool:
    return value is None or (isinstance(value, Tensor) and value.dim() == 2 and value.is_floating_point())


def _has_names(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(name, str) for name in value)


PARTS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "config": ("settings by name", _has_names),
    "epoch": ("a number of epochs", _is_count),
    "iteration": ("a number of iterations", _is_count),
    "model": ("tensors by name", lambda v: _has_names(v) and all(isinstance(x, Tensor) for x in v.values())),
    "optimizer": ("the state of an optimiser", lambda v: _has_names(v) and {"state", "param_groups"} <= v.keys()),
    "scaler": ("the state of a scaler", _has_names),
    "random": ("generators of every process", lambda v: isinstance(v, list) and bool(v) and all(map(_has_names, v))),
    "memory": ("the state of a memory or None", lambda v: v is None or _has_names(v)),
    "labeller": ("the state of a labeller", _has_names),
    "labels": ("int64 labels or None", _is_labels),
    "groups": ("int64 groups or None", _is_labels),
    "losses": ("a table of losses or None", _is_losses),
    "record": ("figures by name", _has_names),
    "history": ("a list of epochs", lambda v: isinstance(v, list) and all(map(_is_record, v))),
    "best": ("the figures of an epoch or None", _is_best),
}
# Parts that older versions did not write, and a setting that came with each.
ADDED = {"labeller": "labels", "groups": "reset_optimizer"}
FOR_EVALUATION = ("config", "epoch", "model", "best")


def require(path: Path, state: Mapping[str, Any], parts: Iterable[str] = tuple(PARTS)) -> None:
    """Every part is there and of its kind.

    Args:
        path: of the file, for the message.
        state: what it holds.
        parts: needed by the caller.

    Raises:
        UsageError: naming the first part that is not.
    """
    for name in parts:
        expected, fits = PARTS[name]
        if name not in state:
            if name in ADDED and ADDED[name] not in state["config"]:
                continue  # of an older version
            raise UsageError(f"checkpoint {path}: incomplete, it has no {name!r}")
        if not fits(state[name]):
            raise UsageError(f"checkpoint {path}: expected {name!r} to be {expected}, got {_short(state[name])}")


def require_all(path: Path, state: Mapping[str, Any]) -> None:
    """All that a run needs to go on, also inside an epoch.

    Raises:
        UsageError: naming the first part that is not there.
    """
    require(path, state)
    done = state["iteration"]
    if done == 0:
        return
    for name in ("memory", "labels", "losses"):
        if state[name] is None:
            raise UsageError(f"checkpoint {path}: incomplete, inside an epoch it needs {name!r}")
    if len(state["losses"]) != done or not isinstance(state["record"].get("seconds"), dict):
        raise UsageError(f"checkpoint {path}: expected 'losses' and 'record' of {done} iterations, got others")


def _short(value: object) -> str:
    return f"a tensor of {value.dtype}" if isinstance(value, Tensor) else f"{type(value).__name__} {value!r:.40}"
