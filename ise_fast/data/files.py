"""Files and folders that are either complete or not there, whatever process is killed when."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
    """
    temporary = target.with_name(f".{target.name}.partial")
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
    except BaseException:
        _remove(temporary)
        raise


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
