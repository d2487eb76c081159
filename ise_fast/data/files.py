"""Files and folders that are either complete or not there, whatever process is killed when."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LONGEST = 255  # bytes of a file name, on the file systems of Linux


@contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Only one process at a time gets past this line; the lock of a killed process is released by the system."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def publish(target: Path, *, folder: bool = False) -> Iterator[Path]:
    """A temporary path beside `target`; what the block wrote there becomes `target` when the block ends without error.

    Leftovers of killed processes are removed: hold `exclusive` for this target where several processes may write it.
    A device or a pipe is written to as it is. Errors name the target.
    """
    if not folder and target.exists() and not target.is_file() and not target.is_dir():
        yield target
        return
    temporary = _beside(target)
    _remove(temporary)
    if folder:
        temporary.mkdir(parents=True)
    try:
        yield temporary
        _sync(temporary)
        if folder:  # a file is replaced in one step, a folder cannot be
            _remove(target)
        os.replace(temporary, target)
        _sync(target.parent)
    except BaseException as error:
        _remove(temporary)
        if isinstance(error, OSError) and error.filename == str(temporary):
            error.filename, error.filename2 = str(target), None
        raise


def _beside(target: Path) -> Path:
    """A hidden name; one of its own for a name that leaves no room for more letters."""
    name = os.fsencode(target.name)
    kept = target.name if len(name) <= LONGEST - len("..partial") else hashlib.sha256(name).hexdigest()
    return target.with_name(f".{kept}.partial")


def _sync(path: Path) -> None:
    """Contents to disk before the rename: after a power cut the name must not exist without them."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def is_utf8(name: str) -> bool:
    """Whether the name of a file is text: the system takes any bytes."""
    return name.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in name)
