"""Checkpoints that survive a kill at any moment: written beside, flushed to the disk, then renamed into place."""

from __future__ import annotations

import errno
import logging
import os
import pickle
import random
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ise_fast.data.files import publish
from ise_fast.engine import digest
from ise_fast.engine.errors import RunError, UsageError

log = logging.getLogger(__name__)

FORMAT = 1
_NAME = re.compile(r"checkpoint-(\d{4,})-(\d{6,})\.pt")


def save_atomically(state: Mapping[str, Any], path: Path) -> None:
    """Write `state` so that `path` is at every moment either the old file or the whole new one.

    Raises:
        OSError, RuntimeError: as the system or torch reports a failed write; `path` is untouched.
    """
    with publish(path) as temporary:
        digest.save(dict(state), temporary)


class CheckpointFolder:
    """The newest `keep` checkpoints of a run and its best one.

    Args:
        folder: where they lie; created when the first is saved.
        keep: how many of the newest stay.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep

    @property
    def best(self) -> Path:
        return self.folder / "best.pt"

    def all(self) -> list[Path]:
        """Checkpoints of the run, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted((p for p in self.folder.iterdir() if _NAME.fullmatch(p.name)), key=_position)

    def save(self, state: Mapping[str, Any], *, best: bool = False) -> Path:
        """Save the state at its epoch and iteration, and drop what is older than the newest `keep`.

        Raises:
            RunError: if the disk is full or cannot be written; the checkpoints saved before stay usable.
        """
        path = self.folder / f"checkpoint-{state['epoch']:04d}-{state['iteration']:06d}.pt"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._remove_left_overs()
            save_atomically(state, path)
            if best:
                self.mark_best(path)
        except (OSError, RuntimeError) as error:  # torch.save reports a failed write as RuntimeError
            raise self.cannot_write(path, error) from error
        # Later ones stay: who went back to an earlier checkpoint did not ask to lose them.
        for old in [p for p in self.all() if _position(p) <= _position(path)][: -self.keep]:
            old.unlink(missing_ok=True)
        return path

    def mark_best(self, path: Path) -> None:
        """Let `best.pt` be this checkpoint."""
        with publish(self.best) as temporary:
            try:
                os.link(path, temporary)  # a second name for the same bytes, which pruning leaves alone
            except OSError:
                shutil.copyfile(path, temporary)

    def _remove_left_overs(self) -> None:
        """Temporary files of a process that was killed while it saved."""
        for path in self.folder.glob(".*.partial"):
            path.unlink(missing_ok=True)

    def cannot_write(self, path: Path, error: BaseException) -> RunError:
        """The error of a run that could not write one of its files: why, and from where it can go on."""
        last = self.all()
        usable = f"the last checkpoint {last[-1]} is usable" if last else "no checkpoint had been saved before"
        return RunError(f"cannot write {path}: {reason(error, path)}; {usable}; go on with --resume auto")

    def complete(self, path: Path | None, state: Mapping[str, Any] | None) -> None:
        """Finish what a kill between saving the checkpoint and marking it as the best one left undone.

        Raises:
            RunError: if it cannot be marked.
        """
        if path is None or state is None or state["best"] is None or state["iteration"] > 0:
            return
        if state["best"]["epoch"] == state["epoch"]:
            try:
                self.mark_best(path)
            except OSError as error:
                raise self.cannot_write(self.best, error) from error

    def load_newest(
        self, check: Callable[[Path, Mapping[str, Any]], None] = lambda path, state: None
    ) -> tuple[Path, dict[str, Any]] | None:
        """The newest checkpoint that can be read and passes the check, or None if there is none at all.

        Raises:
            UsageError: if there are checkpoints and none can be read.
        """
        paths = self.all()
        for path in reversed(paths):
            try:
                state = load(path)
                check(path, state)
                return path, state
            except UsageError as error:
                log.warning("%s; trying the one before", error)
        if paths:
            raise UsageError(f"--resume: no checkpoint in {self.folder} can be read")
        return None


def reason(error: BaseException, path: Path) -> str:
    """Why a file or folder could not be written, in the system's words; a full disk by its name."""
    if not isinstance(error, OSError) or error.strerror is None:
        return f"{type(error).__name__}: {error}".splitlines()[0]
    if error.errno != errno.ENOSPC:
        return error.strerror
    there = next((folder for folder in path.absolute().parents if folder.is_dir()), Path("/"))
    return f"the disk is full ({shutil.disk_usage(there).free >> 20} MiB free), make room"


def _position(path: Path) -> tuple[int, int]:
    match = _NAME.fullmatch(path.name)
    return (int(match[1]), int(match[2])) if match else (-1, -1)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; only tensors and plain values are accepted, so a foreign file cannot run code.

    Raises:
        UsageError: if the file is missing, damaged (its digest is compared) or not one of ours.
    """
    try:
        if path.is_dir():
            raise UsageError(
                f"checkpoint {path}: it is a folder; expected a file, such as checkpoints/best.pt of a run"
            )
        if not path.is_file():
            raise UsageError(f"checkpoint {path}: there is no such file")
        damage = digest.damage(path)
    except OSError as error:
        raise UsageError(f"checkpoint {path}: cannot be read ({reason(error, path)})") from error
    if damage is not None:
        raise UsageError(f"checkpoint {path}: cannot be read, it is damaged ({damage})")
    foreign = UsageError(
        f"checkpoint {path}: not a checkpoint of this program (format {FORMAT} expected; weights of another program: "
        "--pretrained in training, --arch in evaluation)"
    )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # it holds objects that ours never do, or is no such file at all
        raise foreign from error
    except Exception as error:  # a damaged zip surfaces as one of a dozen types
        raise UsageError(f"checkpoint {path}: cannot be read ({_first_line(error)})") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise foreign
    return state


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0].split(". ")[0]


def random_state() -> dict[str, Any]:
    """The state of every global generator, as tensors and plain values."""
    algorithm, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002 - the global state is the point
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": (algorithm, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: Mapping[str, Any]) -> None:
    """Undo everything since `random_state`."""
    random.setstate(state["python"])
    algorithm, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((algorithm, keys.numpy().astype(np.uint32), position, has_gauss, gauss))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def seed_everything(seed: int) -> None:
    """Seed every global generator."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - libraries draw from the global generator
    torch.manual_seed(seed)
