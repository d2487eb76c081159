"""Omniglot as a retrieval task: the same character drawn by other people.

Identity = character of an alphabet, camera = drawer (20 of them, `NNNN_DD.png`: drawer DD). Protocol:

* training: all images of all alphabets but the held-out ones;
* query: the characters of the held-out alphabets, by drawers 1-5;
* gallery: the same characters, by drawers 6-20.

So both characters and alphabets of the test are new, and every match is across drawers. The two published small
archives share the alphabets Greek and Latin: an image that is found twice counts once. Source: Lake, Salakhutdinov,
Tenenbaum, Human-level concept learning through probabilistic program induction, Science 2015.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from .archive import is_archive, member_names
from .base import DatasetError, ReIDDataset, Split, listing, require_directory
from .find import images_in

TEST_ALPHABETS = ("Balinese", "Early_Aramaic", "Tagalog")
QUERY_DRAWERS = range(1, 6)
IMAGE = re.compile(r"(?:^|.*/)([^/]+)/(character\d+)/\d+_(\d+)\.png", re.IGNORECASE)
Row = tuple[Path, str, str, int]  # path, alphabet, character, drawer


def load_omniglot(data_dir: Path, *, test_alphabets: Sequence[str] = TEST_ALPHABETS) -> ReIDDataset:
    """Read Omniglot from its zip archives or from their extracted folders, below data_dir or data_dir/omniglot.

    Args:
        data_dir: folder with images_background*.zip, or folders alphabet/character/NNNN_DD.png at any depth.
        test_alphabets: alphabets that are held out (those of them that are there).

    Raises:
        DatasetError: if there are no images, an archive is damaged, or no alphabet is left for training or for testing.
    """
    require_directory("omniglot", data_dir)
    root = data_dir / "omniglot" if (data_dir / "omniglot").is_dir() else data_dir
    drawings: dict[tuple[str, str, int], Path] = {}
    for path, alphabet, character, drawer in _find(root):
        drawings.setdefault((alphabet, character, drawer), path)
    if not drawings:
        expected = "images_background_small1.zip and/or small2.zip, or alphabet/character01/0001_01.png"
        raise DatasetError(f"omniglot: expected {expected} in {root}, which holds {listing(root)}")
    alphabets = sorted({alphabet for alphabet, _, _ in drawings})
    held_out = [alphabet for alphabet in alphabets if alphabet in test_alphabets]
    if not held_out or len(held_out) == len(alphabets):
        there, wanted = ", ".join(alphabets), ", ".join(test_alphabets)
        raise DatasetError(
            f"omniglot: test_alphabets ({wanted}) must be some, not all, of the alphabets in {root}: {there}"
        )

    identities = {key: i for i, key in enumerate(sorted({drawing[:2] for drawing in drawings}))}
    splits: dict[str, list[tuple[Path, int, int]]] = {"train": [], "query": [], "gallery": []}
    for (alphabet, character, drawer), path in sorted(drawings.items()):
        asked = "query" if drawer in QUERY_DRAWERS else "gallery"
        role = asked if alphabet in held_out else "train"
        splits[role].append((path, identities[alphabet, character], drawer - 1))
    read = {role: Split.from_rows(rows) for role, rows in splits.items()}
    return ReIDDataset("omniglot", root, **read, image_size=(48, 48))


def _find(root: Path) -> Iterator[Row]:
    """Every drawing below root, archives first, then extracted files; paths in sorted order."""
    for archive in sorted(path for path in root.iterdir() if is_archive(path) and not path.name.startswith(".")):
        try:
            names = member_names(archive)
        except DatasetError as error:
            raise DatasetError(f"omniglot: {error}") from None
        yield from _parse(archive, names)
    yield from _parse(root, [path.relative_to(root).as_posix() for path in images_in(root, recursive=True)])


def _parse(parent: Path, names: Sequence[str]) -> Iterator[Row]:
    for name in names:
        match = IMAGE.fullmatch(name)
        if match is None:
            continue
        drawer = int(match[3]) if len(match[3]) < 6 else 0
        if drawer < 1:
            raise DatasetError(f"omniglot: {parent / name}: expected a drawer from 1 on, got {match[3][:20]}")
        yield parent / name, match[1], match[2], drawer
