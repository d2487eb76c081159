"""Your own images: any folder, with or without identities and cameras."""

from __future__ import annotations

import csv as csv_module
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .base import ROLES, DatasetError, ReIDDataset, Split, images_in, listing, option_error, require_directory


@dataclass(frozen=True)
class _Image:
    path: Path
    role: str
    identity: str | None
    camera: str | None


def load_folder(
    data_dir: Path,
    *,
    pattern: str | None = None,
    csv: str | Path | None = None,
    image_size: tuple[int, int] = (256, 128),
) -> ReIDDataset:
    r"""Read a folder of images, at any depth.

    Without options all images are for training, without identities and cameras; images in subfolders `query` and
    `gallery` (beside `train`) are for evaluation, which needs identities.

    Args:
        data_dir: the folder.
        pattern: regular expression, searched in the path below data_dir, with groups named `id` and/or `camera`:
            `(?P<id>\d+)_c(?P<camera>\d+)`. It must match every image.
        csv: table with a header and a column `path` (relative to data_dir, or absolute), and any of `id`, `camera` and
            `split` (train, query, gallery; train when left out). Only the images it lists are used.
        image_size: (height, width) to resize to.

    Identities and cameras may be words or numbers; they are numbered from 0 in sorted order, the same in all splits.
    A split has them for all of its images or for none: training images need neither.

    Raises:
        DatasetError: if there are no images, or one that pattern or csv does not explain.
    """
    require_directory("folder", data_dir)
    if pattern is not None and csv is not None:
        raise DatasetError("folder: options pattern and csv: expected one of them, got both")
    images = _from_table(data_dir, Path(csv)) if csv is not None else _from_files(data_dir, pattern)
    ids, cams = _numbering(image.identity for image in images), _numbering(image.camera for image in images)
    splits = {}
    for role in ROLES:
        chosen = [image for image in images if image.role == role]
        splits[role] = Split(
            tuple(image.path for image in chosen),
            _numbers([image.identity for image in chosen], ids, f"{role} images have no identity"),
            _numbers([image.camera for image in chosen], cams, f"{role} images have no camera"),
        )
    return ReIDDataset("folder", data_dir, **splits, image_size=image_size)


def _from_files(root: Path, pattern: str | None) -> list[_Image]:
    try:
        expression = re.compile(pattern or "")
    except re.error as error:
        raise option_error("folder", "pattern", f"a regular expression ({error})", pattern) from None
    if pattern is not None and not {"id", "camera"} & set(expression.groupindex):
        raise option_error("folder", "pattern", "groups named (?P<id>...) and/or (?P<camera>...)", pattern)
    images = []
    for path in images_in(root, recursive=True):
        name = path.relative_to(root).as_posix()
        match = expression.search(name)
        if match is None:
            raise DatasetError(f"folder: {path} is not explained by pattern {pattern!r}")
        groups = match.groupdict()
        first = name.split("/")[0]
        role = first if first in ROLES and "/" in name else "train"
        images.append(_Image(path, role, groups.get("id"), groups.get("camera")))
    if not images:
        raise DatasetError(f"folder: no images in {root}, which holds {listing(root)}")
    return images


def _from_table(root: Path, table: Path) -> list[_Image]:
    table = table if table.is_absolute() or table.exists() else root / table
    if not table.is_file():
        raise DatasetError(f"folder: table {table} does not exist")
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv_module.DictReader(file)
        columns = list(reader.fieldnames or ())
        if "path" not in columns:
            raise DatasetError(
                f"folder: {table}: expected a header with a column path, got {', '.join(columns) or 'nothing'}"
            )
        images = []
        for row in reader:
            role = row.get("split") or "train"
            path = root / row["path"]
            if role not in ROLES:
                raise DatasetError(
                    f"folder: {table}, line {reader.line_num}: split: expected {', '.join(ROLES)}, got {role!r}"
                )
            if not path.is_file():
                raise DatasetError(f"folder: {table}, line {reader.line_num}: {path} does not exist")
            images.append(_Image(path, role, row.get("id") or None, row.get("camera") or None))
    if not images:
        raise DatasetError(f"folder: {table} lists no image")
    return images


def _numbering(values: Iterable[str | None]) -> dict[str, int]:
    """A number from 0 for every value, in sorted order (numbers by size, words by letter)."""
    known = {value for value in values if value is not None}
    numeric = all(re.fullmatch(r"-?\d+", value) for value in known)
    order = sorted(known, key=lambda value: (int(value), value) if numeric else (0, value))
    return {value: i for i, value in enumerate(order)}


def _numbers(values: Sequence[str | None], numbering: dict[str, int], problem: str) -> NDArray[np.int64] | None:
    """The numbers of a split's values, or None if none of them is known."""
    missing = sum(value is None for value in values)
    if missing == len(values):
        return None
    if missing:
        raise DatasetError(f"folder: {missing} of {len(values)} {problem}; give all of them one or none")
    return np.array([numbering[value] for value in values if value is not None], dtype=np.int64)
