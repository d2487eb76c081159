"""What a list of images is, in a few bytes: the same wherever the files lie and whenever they were copied.

A resumed run compares it, because pseudo labels belong to images by their place in the list. Processes compare their
lists before they share the work.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ise_fast.data import ReIDDataset, Split
from ise_fast.data.archive import archive_of, member_checksum
from ise_fast.engine.distributed import World
from ise_fast.engine.errors import UsageError

ROLES = ("train", "query", "gallery")


def sign(root: Path, paths: Sequence[Path], cams: NDArray[np.int64] | None, world: World, workers: int) -> Tensor:
    """Eight bytes an image, from its name below the folder of the data set, its content and its camera.

    Every process must call it, and each reads its share of the files.

    Args:
        root: folder of the data set.
        paths: n images in the order in which labels count them.
        cams: [n] or None.
        world: this process among its peers.
        workers: threads that read.

    Returns:
        [n, 8] uint8.
    """
    with ThreadPoolExecutor(max(1, workers)) as pool:
        own = list(pool.map(_content, paths[world.share(len(paths))]))
    contents = [digest for share in world.gather_objects(own) for digest in share]
    views = ["-"] * len(paths) if cams is None else [str(int(camera)) for camera in cams]
    rows = bytearray()
    for name, view, content in zip(_names(root, paths), views, contents, strict=True):
        rows += hashlib.sha256(os.fsencode(f"{name}\0{view}\0") + content).digest()[:8]
    return torch.frombuffer(rows, dtype=torch.uint8).reshape(-1, 8) if rows else torch.empty((0, 8), dtype=torch.uint8)


def places(old: Tensor, new: Tensor) -> Tensor | None:
    """[n] int64: where each image of an old list is in the new one; None if one of them is no longer there.

    Args:
        old: [n, 8] as `sign` gave it.
        new: [m, 8].
    """
    place = {row.tobytes(): i for i, row in enumerate(new.numpy())}
    found = [place.get(row.tobytes(), -1) for row in old.numpy()]
    if -1 in found or len(set(found)) < len(found):
        return None
    return torch.tensor(found, dtype=torch.int64)


def require_same_dataset(dataset: ReIDDataset, world: World) -> None:
    """All processes see the same lists of images: names, sizes, identities and cameras.

    Raises:
        UsageError: on every process, if they do not.
    """
    if world.size == 1:
        return
    lists = world.gather_objects([_outline(dataset.root, getattr(dataset, role)) for role in ROLES])
    for rank, other in enumerate(lists):
        if other != lists[0]:
            role, first, now = next((r, a, b) for r, a, b in zip(ROLES, lists[0], other, strict=True) if a != b)
            raise UsageError(
                f"--data-dir: the processes see different images of {role}: {first[0]} in process 0, {now[0]} in "
                f"process {rank}, or with other names, sizes, identities or cameras; give all the same files"
            )


def require_same_choice(kept: NDArray[np.int64], world: World) -> None:
    """All processes can read the same images of a list.

    Raises:
        UsageError: on every process, if they cannot.
    """
    counts = world.gather_objects((len(kept), hashlib.sha256(kept.tobytes()).hexdigest()))
    if len(set(counts)) > 1:
        raise UsageError(f"--unreadable: the processes can read {[n for n, _ in counts]} images, not the same ones")


def _outline(root: Path, split: Split) -> tuple[int, str]:
    digest = hashlib.sha256()
    for name, path in zip(_names(root, split.paths), split.paths, strict=True):
        try:
            size = path.stat().st_size
        except OSError:  # inside an archive, or missing
            size = -1
        digest.update(os.fsencode(f"{name}\0{size}\n"))
    for values in (split.ids, split.cams):
        digest.update(b"-" if values is None else np.ascontiguousarray(values, dtype="<i8").tobytes())
    return len(split.paths), digest.hexdigest()


def _names(root: Path, paths: Sequence[Path]) -> list[str]:
    """Names below the folder of the data set, so that a copy elsewhere has the same ones.

    Images outside of it (a table may list such) are named below the folder that all have in common.
    """
    base, whole = os.path.abspath(root), [os.path.abspath(path) for path in paths]
    if not all(path.startswith(os.path.join(base, "")) for path in whole):
        base = os.path.commonpath([os.path.dirname(path) for path in whole])
    return [os.path.relpath(path, base) for path in whole]


def _content(path: Path) -> bytes:
    """Digest of a file. A member of an archive has one already: its length and check sum."""
    archive = archive_of(path)
    if archive is not None:
        return member_checksum(archive, path)
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return b"missing"
