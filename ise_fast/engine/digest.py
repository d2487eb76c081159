"""A file of `torch.save` that knows its own SHA-256: one flipped bit is found before anything is trained from it.

The digest follows the archive: MARK and 64 hexadecimal digits. torch and zip tools read such a file as any other, since
they look for the end of the archive from behind. A file without the mark (of an older version, or saved by hand) is
checked against the check sums of the archive, which torch writes but does not compare.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

from ise_fast.models.weight_file import damaged_members

MARK = b"\nise_fast sha256 "
TAIL = len(MARK) + 64


class _Digesting:
    """A file that remembers the digest of what was written, and the system's error that torch would hide."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.digest = hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            written = self.file.write(data)
        except OSError as error:
            self.error = error
            raise
        self.digest.update(data)
        return written

    def flush(self) -> None:
        self.file.flush()


def save(state: Any, path: Path) -> None:
    """`torch.save` with the digest behind it.

    Raises:
        OSError: of the system, where the file cannot be written.
    """
    with path.open("wb") as file:
        target = _Digesting(file)
        try:
            torch.save(state, cast(BinaryIO, target))  # it only writes and flushes
        except RuntimeError:
            if target.error is not None:  # "enforce fail at inline_container.cc" says nothing of a full disk
                raise target.error from None
            raise
        file.write(MARK + target.digest.hexdigest().encode())


def damage(path: Path) -> str | None:
    """What is wrong with the bytes of a file that `save` or torch wrote; None if nothing.

    Raises:
        OSError: if it cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - TAIL))
        tail = file.read()
        if not tail.startswith(MARK):
            bad = damaged_members(path)
            return f"the check sum of {bad[0]} is wrong" if bad else None
        file.seek(0)
        digest, left = hashlib.sha256(), size - TAIL
        while left > 0:
            chunk = file.read(min(left, 1 << 20))
            if not chunk:
                break
            digest.update(chunk)
            left -= len(chunk)
    return None if tail[len(MARK) :] == digest.hexdigest().encode() else "its SHA-256 is another than when it was saved"
