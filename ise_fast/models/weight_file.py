"""Tensors out of a file that any program may have written, without running what the file says."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

DEEPEST = 8  # level at which weights are still looked for
_UNKNOWN = re.compile(r"Unsupported global: GLOBAL (\S+) was not an allowed")


class _Inert:
    """Stands for an object that is no tensor: it takes every argument and does nothing."""

    def __new__(cls, *arguments: object, **options: object) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *arguments: object, **options: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def read_weights(path: Path) -> list[dict[str, Tensor]]:
    """Every dictionary of tensors in a file of `torch.save`, however deep it lies, in the order of the file.

    Checkpoints also hold what is no weight: NumPy numbers, settings, optimisers. Such objects are replaced by inert
    ones, so no code of the file runs.

    Raises:
        ValueError: if the file cannot be read, is damaged, or holds no tensors under names; one sentence.
    """
    _check_sums(path)
    content = _load(path)
    found = list(_dictionaries(content))
    if not found:
        what = "a pickled network" if isinstance(content, _Inert) else f"a {type(content).__name__} without tensors"
        raise ValueError(
            f"pretrained: {path} holds no weights: expected a state dict, bare or inside a checkpoint, got {what}; "
            "save them with torch.save(net.state_dict(), FILE)"
        )
    return found


def _load(path: Path) -> Any:
    inert: dict[str, type[_Inert]] = {}
    while True:
        try:
            with torch.serialization.safe_globals([(kind, name) for name, kind in inert.items()]):
                return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file surfaces as one of a dozen types
            unknown = _UNKNOWN.search(str(error))
            name = unknown[1] if unknown else ""
            name = name if "." in name else f"builtins.{name}"  # torch leaves that word out
            if unknown is None or name in inert:
                raise ValueError(f"pretrained: cannot read {path} as a checkpoint: {_reason(error)}") from error
            inert[name] = type("Inert", (_Inert,), {})


def _reason(error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError) and "Weights only load failed" in str(error):
        return (
            "it was not written by torch.save, is damaged, or holds objects besides tensors that are not read for "
            "safety; save the weights alone: torch.save(net.state_dict(), FILE)"
        )
    lines = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _dictionaries(content: object, depth: int = 0) -> Iterator[dict[str, Tensor]]:
    if depth > DEEPEST:  # a container may hold itself
        return
    if isinstance(content, (list, tuple)):
        for value in content:
            yield from _dictionaries(value, depth + 1)
    if isinstance(content, dict):
        tensors = {name: value for name, value in content.items() if isinstance(name, str) and _is_plain(value)}
        if tensors:
            yield tensors
        for value in content.values():
            yield from _dictionaries(value, depth + 1)


def _is_plain(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"


def _check_sums(path: Path) -> None:
    """torch does not compare the check sums that it writes: one flipped bit would be trained from in silence."""
    bad = damaged_members(path)
    if bad:
        raise ValueError(f"pretrained: cannot read {path} as a checkpoint: damaged, the check sum of {bad[0]} is wrong")


def damaged_members(path: Path) -> list[str]:
    """Members of a file of `torch.save` whose check sum is wrong; none where the file has no check sums to compare."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            bad = [name for name in names if not _is_sound(archive, name)]
    except (OSError, zipfile.BadZipFile):
        return []  # the format before torch 1.6, or a file that torch will refuse
    return bad if len(bad) < len(names) else []  # all wrong: torch was told to write none


def _is_sound(archive: zipfile.ZipFile, name: str) -> bool:
    try:
        with archive.open(name) as member:
            while member.read(1 << 20):
                pass
    except Exception:  # zipfile raises many types for a damaged header
        return False
    return True
