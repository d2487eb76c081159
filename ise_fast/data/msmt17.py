"""MSMT17 as it is found on disk: re-packed in the market1501 layout, or native (V1, V2) with list files.

    native V1: ROOT/{train,test}/               and ROOT/list_{train,val,query,gallery}.txt
    native V2: ROOT/{mask_train_v2,mask_test_v2}/   and the same lists

A line of a list is "path identity", the path relative to the train or test folder; the camera is the third field of
the file name (0000_000_01_0303morning_0015_0.jpg: camera 1). The training set is train + val, as everybody uses it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path

from .base import DatasetError, DatasetWarning, ReIDDataset, Split, listing, require_directory, warn_if_counts_differ
from .labels import int64
from .market import MSMT17_REPACKED, load_market_layout
from .text import read_text

Row = tuple[Path, int, int]  # path, identity, camera
NATIVE_FOLDERS = (("train", "test"), ("mask_train_v2", "mask_test_v2"))
LISTS = {"train": ("list_train.txt", "list_val.txt"), "query": ("list_query.txt",), "gallery": ("list_gallery.txt",)}
PLACES = ("msmt17/MSMT17_V1", "msmt17/MSMT17_V2", "msmt17", "MSMT17_V1", "MSMT17_V2", "MSMT17", ".")


def load_msmt17(data_dir: Path) -> ReIDDataset:
    """Read MSMT17, whichever layout it has (found by looking).

    Raises:
        DatasetError: if no known layout is there, a list names no folder that exists or a line cannot be read.
    """
    require_directory("msmt17", data_dir)
    for place in PLACES:
        root = data_dir / place
        if (root / MSMT17_REPACKED.folders[0]).is_dir():
            return load_market_layout(root, MSMT17_REPACKED)
        if (root / LISTS["train"][0]).is_file():
            return _load_native(root)
    expected = f"{', '.join(MSMT17_REPACKED.folders)} (re-packed) or {LISTS['train'][0]} and train, test (native)"
    tried = ", ".join(str(data_dir / place) for place in PLACES)
    raise DatasetError(f"msmt17: expected {expected}; tried {tried}; {data_dir} holds {listing(data_dir)}")


def _load_native(root: Path) -> ReIDDataset:
    for train_name, test_name in NATIVE_FOLDERS:
        if (root / train_name).is_dir() and (root / test_name).is_dir():
            break
    else:
        pairs = " or ".join(" and ".join(pair) for pair in NATIVE_FOLDERS)
        raise DatasetError(f"msmt17: {root} has the list files but no folders {pairs}; it holds {listing(root)}")
    folders = {"train": root / train_name, "query": root / test_name, "gallery": root / test_name}
    splits = {
        role: Split.from_rows(_once(row for name in names for row in _read_list(root / name, folders[role])))
        for role, names in LISTS.items()
    }
    dataset = ReIDDataset("msmt17", root, **splits, image_size=MSMT17_REPACKED.image_size)
    warn_if_counts_differ(dataset, MSMT17_REPACKED.published)
    return dataset


def _read_list(file: Path, folder: Path) -> list[Row]:
    if not file.is_file():
        raise DatasetError(f"msmt17: {file} is missing; expected {', '.join(sum(LISTS.values(), ()))} in {file.parent}")
    try:
        lines = read_text(file).content.splitlines()
    except DatasetError as error:
        raise DatasetError(f"msmt17: {error}") from None
    rows: list[Row] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            name, identity = line.strip().replace("\\", "/").rsplit(maxsplit=1)  # lists made on Windows
            camera = int64(Path(name).name.split("_")[2])
            row = _inside(folder, name), int64(identity), MSMT17_REPACKED.cameras[camera]
        except (ValueError, IndexError, KeyError):
            example = "0000/0000_000_01_0303morning_0015_0.jpg 0 with a camera from 1 to 15"
            raise DatasetError(f"msmt17: {file}, line {number}: expected a line like {example}, got {line!r}") from None
        rows.append(row)
    if not rows:
        raise DatasetError(f"msmt17: {file} lists no image")
    # One look instead of 126,441: files lost from the middle are named when they are decoded.
    if not rows[0][0].is_file():
        raise DatasetError(
            f"msmt17: {file} lists {rows[0][0]}, which does not exist; are the images unpacked in {folder}?"
        )
    return rows


def _once(rows: Iterable[Row]) -> list[Row]:
    """Each image once, though lists may name it twice.

    Raises:
        DatasetError: if it has two identities.
    """
    kept: dict[Path, Row] = {}
    count = 0
    for row in rows:
        count += 1
        first = kept.setdefault(row[0], row)
        if first[1] != row[1]:
            raise DatasetError(f"msmt17: {row[0]} is identity {first[1]} and {row[1]} in the lists")
    if len(kept) < count:
        message = f"msmt17: {count - len(kept)} of {count} images are listed twice; each is taken once"
        warnings.warn(message, DatasetWarning, stacklevel=4)
    return list(kept.values())


def _inside(folder: Path, name: str) -> Path:
    if name.startswith("/") or ".." in name.split("/"):
        raise ValueError(f"expected a path below {folder}, got {name}")
    return folder / name
