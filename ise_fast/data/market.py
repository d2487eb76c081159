"""Data sets in the market1501 layout: one row of the table below each, one loader for all of them.

    ROOT/{train folder, query folder, gallery folder}/IDENTITY_cCAMERA....jpg

Identity -1 is junk (a detection that is no clean person) and is dropped everywhere. Identity 0 of Market-1501 is a
distractor: no query has it, it stays in the gallery. Camera numbers are mapped to 0, 1, .... Market-1501's names also
hold the sequence of the camera and the frame in it: 0002_c1s1_000451_03.jpg.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .base import ROLES, Counts, DatasetError, ReIDDataset, Split, find_root, listing, warn_if_counts_differ
from .find import images_in
from .labels import int64

JUNK = -1
OTHER_NAMES = "images of your own go by --dataset folder with --identity-pattern or --labels-csv"
PERSON_FOLDERS = ("bounding_box_train", "query", "bounding_box_test")


def _numbered(count: int) -> dict[int, int]:
    return {camera: camera - 1 for camera in range(1, count + 1)}


@dataclass(frozen=True)
class MarketLayout:
    """Where a data set lies, how its file names read and what its counts should be."""

    name: str
    inner: str  # usual place below the data root
    pattern: str  # groups: identity, camera
    cameras: Mapping[int, int]  # number in the file name -> from 0
    folders: tuple[str, str, str] = PERSON_FOLDERS
    published: Counts = field(default_factory=dict)
    image_size: tuple[int, int] = (256, 128)
    frame_pattern: str | None = None  # groups: sequence of the camera, frame in it


#: Between frames of the same number in two sequences of a camera: more than a sequence has.
SEQUENCE = 10**9
MARKET1501 = MarketLayout(
    name="market1501",
    inner="market1501/Market-1501-v15.09.15",
    pattern=r"([-\d]+)_c(\d+)",
    cameras=_numbered(6),
    published={"train": (751, 12_936), "query": (750, 3_368), "gallery": (None, 15_913)},
    frame_pattern=r"[-\d]+_c\d+s(\d{1,9})_(\d{1,9})(?!\d)",
)
MSMT17_REPACKED = MarketLayout(
    name="msmt17",
    inner="msmt17/MSMT17_V1",
    pattern=r"([-\d]+)_c(\d+)",
    cameras=_numbered(15),
    published={"train": (1_041, 32_621), "query": (None, 11_659), "gallery": (None, 82_161)},
)
PERSONX = MarketLayout(
    name="personx",
    inner="personx/PersonX",
    pattern=r"([-\d]+)_c(\d+)",
    cameras={3: 0, 4: 1, 8: 2, 10: 3, 11: 4, 12: 5},
    published={"train": (None, 9_840), "query": (None, 5_136), "gallery": (None, 30_816)},
)
VERI776 = MarketLayout(
    name="veri776",
    inner="veri/VeRi",
    pattern=r"([-\d]+)_c(\d+)",
    cameras=_numbered(20),
    folders=("image_train", "image_query", "image_test"),
    published={"train": (None, 37_778), "query": (None, 1_678), "gallery": (None, 11_579)},
    image_size=(224, 224),
)


def load_market_layout(data_dir: Path, layout: MarketLayout) -> ReIDDataset:
    """Read a data set of the market1501 family.

    Args:
        data_dir: the data root, or any folder on the way down to the one that holds the three image folders.
        layout: a row of the table in this module.

    Raises:
        DatasetError: if a folder is missing or empty or a file name does not follow the grammar.
    """
    expected = f"folders {', '.join(layout.folders)} in {layout.inner}"
    root = find_root(layout.name, data_dir, layout.inner, layout.folders[0], expected)
    splits = {role: _read_folder(root / folder, layout) for role, folder in zip(ROLES, layout.folders, strict=True)}
    dataset = ReIDDataset(layout.name, root, **splits, image_size=layout.image_size)
    warn_if_counts_differ(dataset, layout.published)
    return dataset


def _read_folder(folder: Path, layout: MarketLayout) -> Split:
    if not folder.is_dir():
        message = (
            f"expected folders {', '.join(layout.folders)} in {folder.parent}, which holds {listing(folder.parent)}"
        )
        raise DatasetError(f"{layout.name}: {folder.name} is missing; {message}")
    rows = []
    for path in images_in(folder):
        match = re.match(layout.pattern, path.name)
        if match is None:
            raise DatasetError(
                f"{layout.name}: {path}: expected a file name like {layout.pattern}, such as 0002_c1s1_000451_03.jpg"
            )
        try:
            identity, camera = int64(match[1]), int64(match[2])
        except ValueError:
            raise DatasetError(
                f"{layout.name}: {path}: expected whole numbers of 64 bits as identity and camera, got {match[1]} and "
                f"{match[2]}; {OTHER_NAMES}"
            ) from None
        if identity == JUNK:
            continue
        if camera not in layout.cameras:
            known = ", ".join(map(str, layout.cameras))
            raise DatasetError(f"{layout.name}: {path}: camera {camera} is not one of {known}; {OTHER_NAMES}")
        rows.append((path, identity, layout.cameras[camera]))
    if not rows:
        raise DatasetError(
            f"{layout.name}: {folder} holds no usable image; expected files such as 0002_c1s1_000451_03.jpg"
        )
    return Split.from_rows(rows, _frames([row[0].name for row in rows], layout.frame_pattern))


def _frames(names: list[str], pattern: str | None) -> list[int] | None:
    """Frames by time, -1 where a name does not tell; None if none does."""
    if pattern is None:
        return None
    found = [re.match(pattern, name) for name in names]
    frames = [-1 if match is None else int(match[1]) * SEQUENCE + int(match[2]) for match in found]
    return frames if any(frame >= 0 for frame in frames) else None
