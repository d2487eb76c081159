"""Images decoded and resized once, kept as uint8 in memory or in a memory-mapped file, or decoded when asked for."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ise_fast._progress import stage

from .archive import archive_of
from .base import DatasetError
from .decode import read_image as read_image
from .decode import read_pixels
from .files import exclusive, publish

CacheKind = Literal["memory", "disk", "none"]
FORMAT = 2  # raise when decoding or resizing changes, so that old cache files are not used
SKIP_HINT = "; remove it, or skip unreadable images with on_error='skip'"


class ImageStore:
    """Equal-sized uint8 images of a list of paths; `store.batch([3, 1])` -> [2, 3, h, w]. Made by `open_images`.

    Attributes:
        paths: the images that can be read, in the order given.
        kept: [n] int64, their positions in the list given: `split.take(store.kept)` has the same order as the store.
        skipped: (path, reason) of the unreadable ones.
        images: [n, 3, h, w] uint8, or None with cache="none". A memory-mapped file with cache="disk".
    """

    def __init__(
        self,
        paths: Sequence[Path],
        size: tuple[int, int],
        workers: int,
        images: Tensor | None,
        failures: dict[int, str],
    ) -> None:
        kept = [i for i in range(len(paths)) if i not in failures]
        self.paths = tuple(paths[i] for i in kept)
        self.kept: NDArray[np.int64] = np.array(kept, dtype=np.int64)
        self.skipped = tuple((paths[i], reason) for i, reason in failures.items())
        self.size = size
        self.images = images
        self._pool = ThreadPoolExecutor(workers)  # starts no thread before it is used

    def __len__(self) -> int:
        return len(self.paths)

    def batch(self, indices: Sequence[int] | ArrayLike | Tensor) -> Tensor:
        """Images at `indices` (positions in the store) as a new [B, 3, h, w] uint8 tensor on the CPU.

        Raises:
            DatasetError: with cache="none", for an image that cannot be read.
        """
        index = torch.as_tensor(indices, dtype=torch.int64)
        if self.images is not None:
            return self.images.index_select(0, index.to(self.images.device))
        decoded = list(self._pool.map(lambda i: read_pixels(self.paths[i], self.size), index.tolist()))
        return torch.from_numpy(np.stack(decoded)) if decoded else torch.empty((0, 3, *self.size), dtype=torch.uint8)


def open_images(
    paths: Sequence[Path | str],
    size: tuple[int, int],
    cache: CacheKind = "memory",
    workers: int = 4,
    on_error: Literal["raise", "skip"] = "raise",
    *,
    cache_dir: Path | str | None = None,
    progress: bool = False,
) -> ImageStore:
    """Open images for reading at one size (bicubic).

    Args:
        paths: image files, also inside zip archives.
        size: (height, width).
        cache: "memory": decode all now and keep them (3 h w bytes each). "disk": the same in a memory-mapped file below
            `cache_dir`, found again by a signature of paths, sizes, times of change and image size; it is made under a
            temporary name and renamed, so a killed process leaves no half-made file behind, and processes that want
            the same file wait for the first. "none": decode when asked for.
        workers: threads that decode (decoding and resizing run without the interpreter lock).
        on_error: "raise" stops at the first unreadable image; "skip" leaves it out (`skipped` tells which, `kept` what
            is left). With cache="none", "skip" decodes everything once to find out.
        cache_dir: needed for "disk".
        progress: show a bar, on a terminal or in a notebook.

    Raises:
        DatasetError: for an unreadable image (named), or if no image is left.
        ValueError: for an unknown cache or on_error, a size or number of workers below 1, no cache_dir.
        OSError: if the disk is full; nothing is left behind.
    """
    if cache not in ("memory", "disk", "none"):
        raise ValueError(f"cache: expected memory, disk or none, got {cache!r}")
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error: expected raise or skip, got {on_error!r}")
    if min(size) < 1:
        raise ValueError(f"size: expected (height, width) of at least 1, got {size}")
    if workers < 1:
        raise ValueError(f"workers: expected at least 1, got {workers}")
    files = [Path(path) for path in paths]
    height, width = size
    skip = on_error == "skip"
    if cache == "none":
        failures = _decode(files, size, workers, None, progress) if skip else {}
        images = None
    elif cache == "memory":
        array = np.empty((len(files), 3, height, width), dtype=np.uint8)
        failures = _decode(files, size, workers, array, progress, stop=not skip)
        images = torch.from_numpy(_close_gaps(array, failures))
    else:
        if cache_dir is None:
            raise ValueError("cache_dir: expected a folder with cache='disk', got None")
        images, failures = _open_cache(files, size, Path(cache_dir), workers, progress, stop=not skip)
    if files and len(failures) == len(files):
        raise DatasetError(f"none of {len(files)} images can be read; the first: {failures[0]}")
    return ImageStore(files, size, workers, images, failures)


def _decode(
    paths: Sequence[Path],
    size: tuple[int, int],
    workers: int,
    out: NDArray[np.uint8] | None,
    progress: bool,
    *,
    stop: bool = False,
) -> dict[int, str]:
    """Decode all paths into `out`; returns position -> reason of the unreadable ones, or raises at the first (stop)."""

    def decode(index: int) -> str | None:
        try:
            pixels = read_pixels(paths[index], size)
        except DatasetError as error:
            return str(error)
        if out is not None:
            out[index] = pixels
        return None

    failures: dict[int, str] = {}
    pending = iter(range(len(paths)))
    with stage(len(paths), "decode", "images", bar=progress) as watched, ThreadPoolExecutor(workers) as pool:
        # In slices, so that the queue stays short and an error or Ctrl-C does not wait for everything to be decoded.
        while chunk := list(islice(pending, 64 * workers)):
            for index, failure in zip(chunk, pool.map(decode, chunk), strict=True):
                if failure is not None:
                    if stop:
                        raise DatasetError(failure + SKIP_HINT)
                    failures[index] = failure
            watched.update(len(chunk))
    return failures


def _close_gaps(array: NDArray[np.uint8], failures: dict[int, str]) -> NDArray[np.uint8]:
    """Move the images behind unreadable ones up, in place: the array may be larger than memory."""
    kept = 0
    for index in range(len(array)):
        if index not in failures:
            if kept != index:
                array[kept] = array[index]
            kept += 1
    return array[:kept]


def _open_cache(
    paths: Sequence[Path], size: tuple[int, int], cache_dir: Path, workers: int, progress: bool, *, stop: bool
) -> tuple[Tensor, dict[int, str]]:
    """The cache file of these images, made if it is not there. A record is written last: it says that all is there."""
    name = f"images-{size[0]}x{size[1]}-{_signature(paths, size)}"
    data, record = cache_dir / f"{name}.u8", cache_dir / f"{name}.json"
    failures = _read_record(data, record, len(paths), size)
    if failures is None:  # a finished file may lie in a folder that can only be read
        with exclusive(cache_dir / f"{name}.lock"):
            failures = _read_record(data, record, len(paths), size)
            if failures is None:  # nor has another process made it meanwhile
                with publish(data) as temporary:
                    failures = _fill_cache(temporary, (len(paths), 3, *size), paths, workers, progress, stop=stop)
                with publish(record) as temporary:
                    temporary.write_text(json.dumps({"failures": failures}), encoding="utf-8")
    if failures and stop:
        raise DatasetError(next(iter(failures.values())) + SKIP_HINT)
    shape = (len(paths) - len(failures), 3, *size)
    if not shape[0]:
        return torch.empty(shape, dtype=torch.uint8), failures
    # Copy on write: torch wants writable memory, the file stays as it is.
    return torch.from_numpy(np.memmap(data, dtype=np.uint8, mode="c", shape=shape)), failures


def _read_record(data: Path, record: Path, count: int, size: tuple[int, int]) -> dict[int, str] | None:
    """The failures that the record tells of, or None where it or its file is missing, cut off or of no sense."""
    try:
        failures = {int(i): str(why) for i, why in json.loads(record.read_text(encoding="utf-8"))["failures"].items()}
        whole = data.stat().st_size == (count - len(failures)) * 3 * size[0] * size[1]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return failures if whole else None


def _fill_cache(
    file: Path, shape: tuple[int, int, int, int], paths: Sequence[Path], workers: int, progress: bool, *, stop: bool
) -> dict[int, str]:
    with file.open("wb") as handle:
        if not paths:
            return {}
        # Reserve the space first: a full disk raises OSError here, but kills who writes to a hole of a mapped file.
        os.posix_fallocate(handle.fileno(), 0, math.prod(shape))
    out = np.memmap(file, dtype=np.uint8, mode="r+", shape=shape)
    failures = _decode(paths, shape[2:], workers, out, progress, stop=stop)
    kept = _close_gaps(out, failures)
    out.flush()
    os.truncate(file, kept.nbytes)
    return failures


def _signature(paths: Sequence[Path], size: tuple[int, int]) -> str:
    """Changes when a file is added, removed, renamed, rewritten, or when the images are wanted at another size."""
    digest = hashlib.sha256(json.dumps([FORMAT, size]).encode())
    for path in paths:
        digest.update(os.fsencode(f"{path}\0{_version(path)}\n"))  # names need not be UTF-8
    return digest.hexdigest()[:20]


def _version(path: Path) -> str:
    try:
        stat = (archive_of(path) or path).stat()
    except OSError:
        return "missing"
    return f"{stat.st_size} {stat.st_mtime_ns}"
