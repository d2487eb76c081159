"""Members of zip archives: found by clean names, refused before they are inflated when they are too large."""

from __future__ import annotations

import os
import re
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import IO

from .base import DatasetError

MAX_BYTES = 128 << 20  # of one inflated member: no image file of a data set is larger
MAX_RATIO = 100  # inflated / packed, of members from RATIO_FROM on; images do not pack that well
RATIO_FROM = 4 << 20


def archive_of(path: Path) -> Path | None:
    """The archive that holds `path`, or None for a file of its own. A folder may be called `people.zip` too."""
    return next((parent for parent in path.parents if is_archive(parent)), None)


def is_archive(path: Path) -> bool:
    return path.suffix.lower() == ".zip" and path.is_file()


def member_names(archive: Path) -> list[str]:
    """The clean names of all members, sorted; `archive / name` is what `open_member` finds again.

    Raises:
        DatasetError: if the archive cannot be read, or a name leads out of it.
    """
    try:
        return sorted(_open(archive)[1])
    except DatasetError:
        raise
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise DatasetError(f"archive {archive} cannot be read: {error}") from error


def open_member(archive: Path, path: Path) -> IO[bytes]:
    """The bytes of the member at `path`, which lies in `archive`.

    Raises:
        DatasetError: there is no such member, it is encrypted, or it would inflate beyond measure.
    """
    opened, info = _member(archive, path)
    if info.flag_bits & 1:
        raise DatasetError("it is encrypted; unpack the archive")
    packed = max(1, info.compress_size)
    if info.file_size > MAX_BYTES or (info.file_size > RATIO_FROM and info.file_size > MAX_RATIO * packed):
        size = f"{packed} bytes inflate to {info.file_size}"
        raise DatasetError(f"{size}, which no image does; unpack the archive if you trust it")
    return opened.open(info)


def member_checksum(archive: Path, path: Path) -> bytes:
    """Tells one content of the member at `path` from another, without reading it.

    Raises:
        DatasetError: there is no such member.
    """
    _, info = _member(archive, path)
    return f"{info.CRC} {info.file_size}".encode()


def _member(archive: Path, path: Path) -> tuple[zipfile.ZipFile, zipfile.ZipInfo]:
    opened, members = _open(archive)
    info = members.get(path.relative_to(archive).as_posix())
    if info is None:
        raise DatasetError("the archive has no such member")
    return opened, info


def _open(archive: Path) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]:
    stat = archive.stat()
    return _open_version(archive, (stat.st_size, stat.st_mtime_ns, stat.st_ino), os.getpid())


@lru_cache(maxsize=16)
def _open_version(
    archive: Path, version: tuple[int, int, int], process: int
) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]:
    """Safe among threads (members seek under a lock); per process, because a fork shares the position in the file."""
    opened = zipfile.ZipFile(archive)
    return opened, {_clean(archive, info.filename): info for info in opened.infolist() if not info.is_dir()}


def _clean(archive: Path, name: str) -> str:
    """A relative name with slashes: some archivers write absolute names, drives and the backslashes of Windows."""
    parts = re.sub(r"^[A-Za-z]:", "", name.replace("\\", "/")).split("/")
    if ".." in parts:
        raise DatasetError(f"archive {archive} cannot be read: its member {name!r} leads out of it; pack it anew")
    return "/".join(part for part in parts if part not in ("", "."))
