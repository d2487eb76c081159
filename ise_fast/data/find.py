"""Which files of a folder are images: one rule for all data sets.

An image is what is no folder and has a suffix of a format that `decode` reads, in small or capital letters. A broken
link or a pipe of such a name counts, so that it is named as unreadable instead of missing in silence. Hidden names
(`._x.jpg` of some archivers), the thumbnails of file servers and the folders of training runs do not count, but the
folder that is asked for counts also where a run lives in it. Linked folders are read like others, each folder once,
also when links form a loop. Files that hold an image under another suffix are counted in a warning.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter, deque
from pathlib import Path

from .base import DatasetWarning
from .decode import suffixes

RUN_FILES = frozenset({"config.yaml", "environment.json", "checkpoints"})  # of training: its curves are no images
RUN_PICTURE = "curves.png"
NOT_SEARCHED = frozenset({"__MACOSX", "@eaDir"})  # copies and thumbnails that systems put beside images
PROBES = 100
BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ", b"\0\0\0\x0cJXL ")
# What lies beside images in many data sets, perhaps one for each: not worth a look inside.
NO_IMAGES = frozenset({
    ".txt", ".md", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".mat", ".npy", ".npz", ".pkl", ".db",
    ".ini", ".log", ".html", ".pdf", ".zip", ".tar", ".gz", ".py", ".pt", ".pth", ".mp4", ".avi", ".mov",
})  # fmt: skip


def images_in(folder: Path, *, recursive: bool = False) -> list[Path]:
    """Image files of a folder, in the order of their names.

    Raises:
        OSError: if a folder cannot be read.
    """
    search = _Search(folder, recursive)
    search.run()
    _warn_of_other_suffixes(search.others)
    if search.repeated:
        count, first = len(search.repeated), min(search.repeated)
        message = f"{count} linked folders lead to images that are listed already and are left out, such as {first}"
        warnings.warn(message, DatasetWarning, stacklevel=2)
    return sorted(search.images)


class _Search:
    """Folders first, links last: a folder that is also linked is listed under its own name."""

    def __init__(self, folder: Path, recursive: bool) -> None:
        self.images: list[Path] = []
        self.others: list[Path] = []  # regular files of other suffixes
        self.repeated: list[Path] = []  # links to folders that are listed anyway
        self._root = folder
        self._recursive = recursive
        self._seen: set[tuple[int, int]] = set()
        self._folders = deque([folder])
        self._links: list[Path] = []

    def run(self) -> None:
        while self._folders or self._links:
            if self._folders:
                folder = self._folders.popleft()
                if self._is_new(folder):
                    self._list(folder)
                continue
            self._links.sort(reverse=True)
            link = self._links.pop()
            if self._is_new(link):
                self._list(link)
            elif not _is_loop(link):
                self.repeated.append(link)

    def _is_new(self, folder: Path) -> bool:
        stat = folder.stat()
        known = (stat.st_dev, stat.st_ino) in self._seen
        self._seen.add((stat.st_dev, stat.st_ino))
        return not known

    def _list(self, folder: Path) -> None:
        with os.scandir(folder) as scanned:
            entries = list(scanned)
            is_run = {entry.name for entry in entries} >= RUN_FILES
            if is_run and folder != self._root:
                return
            for entry in entries:
                if is_run and entry.name == RUN_PICTURE:
                    continue
                path = folder / entry.name
                if entry.name.startswith(".") or entry.name in NOT_SEARCHED:
                    continue
                if path.is_dir() if entry.is_symlink() else entry.is_dir():
                    if self._recursive:
                        (self._links if entry.is_symlink() else self._folders).append(path)
                elif path.suffix.lower() in suffixes():
                    self.images.append(path)
                elif path.suffix.lower() not in NO_IMAGES and entry.is_file():
                    self.others.append(path)


def _is_loop(link: Path) -> bool:
    """Whether the link leads to a folder above itself."""
    return os.path.realpath(link) in map(os.path.realpath, link.parents)


def _warn_of_other_suffixes(files: list[Path]) -> None:
    by_suffix: dict[str, list[Path]] = {}
    for path in sorted(files):
        by_suffix.setdefault(path.suffix.lower() or "none", []).append(path)
    # Data sets have files of a kind for every image: a few tell what the kind is.
    kinds = [paths for paths in by_suffix.values() if any(map(_holds_image, paths[:PROBES]))]
    found = sorted(path for paths in kinds for path in paths if _holds_image(path))
    if not found:
        return
    counts = Counter(path.suffix.lower() or "none" for path in found)
    told = ", ".join(f"{suffix} {count}" for suffix, count in sorted(counts.items()))
    message = f"{len(found)} images are left out because of their suffix ({told}), such as {found[0]}"
    warnings.warn(f"{message}; convert or rename them to have them read", DatasetWarning, stacklevel=3)


def _holds_image(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            head = opened.read(16)
    except OSError:
        return False
    heif = head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"avif")
    return head.startswith(BEGINNINGS) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP") or heif
