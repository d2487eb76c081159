"""Where a run lives: a new folder, or the one that `--resume` goes on with; finished work is never overwritten.

One run at a time has a folder: it holds a lock that the system releases when the process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import logging
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ise_fast.engine import checkpoint, checkpoint_parts
from ise_fast.engine.checkpoint import CheckpointFolder
from ise_fast.engine.config import TrainConfig
from ise_fast.engine.errors import UsageError
from ise_fast.engine.state import changed_settings

log = logging.getLogger(__name__)

LOGS = Path("logs")
RUN_FILES = ("config.yaml", "environment.json", "metrics.jsonl", "train.log")  # what every run writes when it starts


@dataclass(frozen=True)
class RunPlace:
    """Where a run lives and what it goes on from.

    Attributes:
        folder: of the run; it may not exist yet.
        path: checkpoint to go on from; None: a new run.
        content: of that checkpoint.
        locked: no other run can take the folder any more.
        name: of a numbered folder below LOGS, where the next number will do as well; None: this folder or none.
        number: of that folder.
    """

    folder: Path
    path: Path | None = None
    content: dict[str, Any] | None = None
    locked: bool = False
    name: str | None = None
    number: int = 1


def choose(config: TrainConfig, held: contextlib.ExitStack) -> RunPlace:
    """The place of a run. Nothing is created; a folder that is already there is locked until `held` is closed.

    Without `--logs-dir`, runs of a preset are numbered: logs/NAME, logs/NAME-2, ...; `--resume auto` takes the newest.
    A checkpoint given by its path goes on in the folder of its run, if it lies there, and otherwise in a new one.

    Raises:
        UsageError: if the folder holds another run or is in use, or a checkpoint cannot be read.
    """
    try:
        return _choose(config, held)
    except OSError as error:  # a name that is too long, a folder above that cannot be entered
        where = Path(error.filename or config.run.logs_dir or LOGS)
        raise UsageError(f"--logs-dir: cannot look into {where}: {checkpoint.reason(error, where)}") from error


def _choose(config: TrainConfig, held: contextlib.ExitStack) -> RunPlace:
    resume, given = config.run.resume, config.run.logs_dir
    if given is not None and Path(given).exists() and not Path(given).is_dir():
        raise UsageError(f"--logs-dir: expected a folder, got the file {given}")
    if resume not in (None, "auto"):
        return _from_checkpoint(config, Path(resume), held)
    if given is None:
        name = _name(config)
        taken = _last(name)
        if resume is None or not taken:
            return _new(name, held)
        folder = _numbered(name, taken)
    else:
        folder = Path(given)
    locked = folder.is_dir()
    if locked:
        _lock_or_refuse(folder, held)
    if resume is None and _used(folder):
        raise UsageError(f"--logs-dir: {folder} holds a run; go on with --resume auto, or choose another folder")
    found = CheckpointFolder(folder / "checkpoints").load_newest(checkpoint_parts.require_all) if resume else None
    path, content = found or (None, None)
    return RunPlace(folder, path, content, locked)


def claim(place: RunPlace, held: contextlib.ExitStack) -> Path:
    """The folder, made and locked if `choose` did not find it: the last step before anything is written.

    Raises:
        UsageError: if it cannot be made or written, or another run took it meanwhile.
    """
    folder, number = place.folder, place.number
    locked = place.locked
    while not locked:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--logs-dir: cannot make {folder}: {checkpoint.reason(error, folder)}") from error
        locked = _lock(folder, held) and not _used(folder)
        if not locked and place.name is None:
            raise _in_use(folder)
        if not locked and place.name is not None:
            number += 1
            folder = _numbered(place.name, number)
    if not _used(folder) and (folder / "config.yaml").exists() and _settings(folder) is None:
        raise UsageError(f"--logs-dir: {folder} holds a config.yaml of another program; choose another folder")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(f"--logs-dir: cannot write to {folder}: {checkpoint.reason(error, folder)}") from error
    return folder


def _from_checkpoint(config: TrainConfig, path: Path, held: contextlib.ExitStack) -> RunPlace:
    if path.is_dir():
        raise UsageError(
            f"--resume: expected auto or a checkpoint, got the folder {path}; the run in it goes on with "
            f"--logs-dir {path} --resume auto"
        )
    content = checkpoint.load(path)
    checkpoint_parts.require_all(path, content)
    if config.run.logs_dir is not None:
        folder = Path(config.run.logs_dir)
        if _used(folder) and not _is_run_of(folder, content):
            raise UsageError(f"--logs-dir: {folder} holds another run than that of {path}; choose another folder")
    else:
        real = path.resolve()
        folder = real.parent.parent
        if real.parent.name != "checkpoints" or not _is_run_of(folder, content):
            return replace(_new(_name(config), held), path=path, content=content)
    locked = folder.is_dir()
    if locked:
        _lock_or_refuse(folder, held)
    return RunPlace(folder, path, content, locked)


def _is_run_of(folder: Path, content: Mapping[str, Any]) -> bool:
    """Whether the folder is that of the run which wrote the checkpoint: all its files, with the same settings."""
    if not all((folder / name).is_file() for name in RUN_FILES):
        return False
    settings, saved = _settings(folder), content["config"]
    return settings is not None and settings.keys() >= saved.keys() and not changed_settings(saved, settings)


def _settings(folder: Path) -> dict[str, Any] | None:
    """What config.yaml says, if this program wrote it."""
    import yaml

    try:
        settings = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    ours = isinstance(settings, dict) and {"preset", "dataset", "eps", "logs_dir", "resume"} <= settings.keys()
    return settings if ours else None


def _new(name: str, held: contextlib.ExitStack) -> RunPlace:
    """The first folder of that name after all that hold a run, if it is not in use."""
    for number in itertools.count(_last(name) + 1):
        folder = _numbered(name, number)
        if not folder.is_dir():
            break  # made by `claim`
        if _lock(folder, held) and not _used(folder):
            return RunPlace(folder, locked=True, name=name, number=number)
    return RunPlace(folder, name=name, number=number)


def _last(name: str) -> int:
    """The highest number of a folder of that name that holds a run; 0: there is none. Some may have been removed."""
    numbered = re.compile(re.escape(name) + r"(?:-([2-9]|[1-9]\d+))?")
    found = [(numbered.fullmatch(path.name), path) for path in (LOGS.iterdir() if LOGS.is_dir() else ())]
    return max((int(match[1] or 1) for match, path in found if match and _used(path)), default=0)


def _name(config: TrainConfig) -> str:
    method = config.plan.method.rpartition(":")[2]
    return config.preset if method in config.preset else f"{config.preset}-{method}"


def _numbered(name: str, number: int) -> Path:
    return LOGS / (name if number == 1 else f"{name}-{number}")


def _used(folder: Path) -> bool:
    return bool(CheckpointFolder(folder / "checkpoints").all())  # a run that failed before left nothing to lose


def _lock_or_refuse(folder: Path, held: contextlib.ExitStack) -> None:
    if not _lock(folder, held):
        raise _in_use(folder)


def _in_use(folder: Path) -> UsageError:
    return UsageError(f"--logs-dir: {folder} is in use by another run; wait for its end, or choose another folder")


def _lock(folder: Path, held: contextlib.ExitStack) -> bool:
    """Lock an existing folder until `held` is closed; False if another run has it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise UsageError(f"--logs-dir: cannot open {folder}: {checkpoint.reason(error, folder)}") from error
    held.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # network file systems lock files only
        return _lock_file(folder / ".lock", held)
    return True


def _lock_file(path: Path, held: contextlib.ExitStack) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        held.callback(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        log.warning("%s cannot be locked (%s): start no second run in it", path.parent, error.strerror)
    return True
