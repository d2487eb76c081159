"""Your own images: any folder, with or without identities and cameras."""

from __future__ import annotations

import difflib
import os
import re
import warnings
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .base import (
    ROLES,
    DatasetError,
    DatasetWarning,
    ReIDDataset,
    Split,
    Views,
    listing,
    option_error,
    require_directory,
)
from .find import images_in
from .labels import ROLE_NAMES, TEST_NAMES, numbering, numbers, role_of, spelled_alike, spelling
from .table import read_table


@dataclass(frozen=True)
class _Image:
    path: Path
    role: str
    identity: str | None
    camera: str | None
    place: str  # for messages
    tracklet: str | None = None
    view_of: Path | None = None
    frame: int | None = None


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
        csv: table with a header and a column `path` (relative to data_dir, or absolute), and any of `id`, `camera`,
            `tracklet` (of the images of one camera that are known to show one thing), `view_of` (the path of the
            training image that this is a further view of), `frame` (a whole number: which frame of the camera's video;
            frames of two videos are numbered far apart) and `split` (train, query, gallery; train when left out).
            Only the images it lists are used. `read_table` says which spellings it knows; a column that it does not
            know is an error.
        image_size: (height, width) to resize to.

    Identities and cameras may be words or numbers; they are numbered from 0 in sorted order, the same in all splits.
    Numbers are compared as numbers (0007 is 7). Folders are roles also in other letters (Train, probe) or further down;
    a warning says what was taken for what.
    A split has them for all of its images or for none: training images need neither.

    Raises:
        DatasetError: if there are no images, or one that pattern or csv does not explain.
    """
    require_directory("folder", data_dir)
    if pattern is not None and csv is not None:
        raise DatasetError("folder: options pattern and csv: expected one of them, got both")
    images = _from_table(data_dir, Path(os.path.expanduser(csv))) if csv is not None else _from_files(data_dir, pattern)
    images, views = _split_views(_without_repeats(_spelled_alike(images)))
    ids, cams = numbering(image.identity for image in images), numbering(image.camera for image in images)
    splits = {}
    for role in ROLES:
        chosen = [image for image in images if image.role == role]
        splits[role] = Split(
            tuple(image.path for image in chosen),
            numbers([image.identity for image in chosen], ids, f"{role} images have no identity"),
            numbers([image.camera for image in chosen], cams, f"{role} images have no camera"),
            _tracklets(chosen) if role == "train" else None,
            views if role == "train" else None,
            _frames(chosen) if role == "train" else None,
        )
    _warn_of_half_a_test(splits)
    return ReIDDataset("folder", data_dir, **splits, image_size=image_size)


def _from_files(root: Path, pattern: str | None) -> list[_Image]:
    try:
        expression = re.compile(pattern or "")
    except re.error as error:
        raise option_error("folder", "pattern", f"a regular expression ({error})", pattern) from None
    if pattern is not None and not {"id", "camera"} & set(expression.groupindex):
        raise option_error("folder", "pattern", "groups named (?P<id>...) and/or (?P<camera>...)", pattern)
    images, roles = [], {}
    for path in images_in(root, recursive=True):
        name = path.relative_to(root).as_posix()
        match = expression.search(name)
        if match is None:
            raise DatasetError(f"folder: {path} is not explained by pattern {pattern!r}")
        groups = match.groupdict()
        folder, role = _role_folder(name)
        roles[folder] = role
        images.append(_Image(path, role, groups.get("id") or None, groups.get("camera") or None, str(path)))
    if not images:
        raise DatasetError(f"folder: no images in {root}, which holds {listing(root)}")
    _warn_of_roles(root, roles)
    return images


def _role_folder(name: str) -> tuple[str, str]:
    """The folder, relative to the root, that decides the role of the image `name`, and the role."""
    folders = name.split("/")[:-1]
    for depth, folder in enumerate(folders, start=1):
        role = role_of(folder)
        if role is not None:
            return "/".join(folders[:depth]), role
    return "/".join(folders), "train"


def _warn_of_roles(root: Path, roles: dict[str, str]) -> None:
    """Say what was taken for what, where a folder is not simply called train, query or gallery at the top."""
    unusual = {folder: role for folder, role in roles.items() if role_of(folder.split("/")[-1]) and folder != role}
    if unusual:
        taken = ", ".join(f"{folder} for {role}" for folder, role in sorted(unusual.items())[:6])
        more = f" and {len(unusual) - 6} more" if len(unusual) > 6 else ""
        _warn(f"folders below {root} taken for a role: {taken}{more}")
    tops = {part for folder, role in roles.items() if role == "train" for part in folder.split("/")[:2]}
    doubtful = sorted(part for part in tops if role_of(part) is None and _resembles_a_role(part))
    if doubtful:
        _warn(
            f"the images in {', '.join(doubtful[:6])} below {root} are taken for training; folders of images for "
            "evaluation are called query and gallery"
        )


def _resembles_a_role(folder: str) -> bool:
    """query1, Test images, galery: names that make one think of evaluation."""
    plain = spelling(folder)
    words = re.findall(r"[^\W\d_]+", plain)
    hinted = any(word in TEST_NAMES or word.startswith(("query", "probe", "gallery")) for word in words)
    return hinted or bool(difflib.get_close_matches(plain, ROLE_NAMES, n=1, cutoff=0.8))


def _from_table(root: Path, table: Path) -> list[_Image]:
    table = table if table.is_absolute() or table.exists() else root / table
    rows = read_table(root, table)
    without = sum(row.role is None for row in rows)
    if 0 < without < len(rows):
        _warn(f"{without} of {len(rows)} rows of {table} have no split and are taken for training")
    return [
        _Image(row.path, row.role or "train", row.identity, row.camera, place, row.tracklet, row.view_of, row.frame)
        for row, place in ((row, f"{table}, line {row.line}") for row in rows)
    ]


def _spelled_alike(images: list[_Image]) -> list[_Image]:
    try:
        ids = spelled_alike([image.identity for image in images])
        cams = spelled_alike([image.camera for image in images])
        tracks = spelled_alike([image.tracklet for image in images])
    except ValueError as error:
        raise DatasetError(f"folder: {error}") from None
    spelled = zip(images, ids, cams, tracks, strict=True)
    return [replace(image, identity=i, camera=c, tracklet=t) for image, i, c, t in spelled]


def _without_repeats(images: list[_Image]) -> list[_Image]:
    """Each image once in a role, whether a table lists it twice or a linked file stands beside its target.

    Raises:
        DatasetError: if it has two identities or two cameras.
    """
    files = [os.path.normpath(image.path) for image in images]
    links = {file: os.path.realpath(file) for file in files if os.path.islink(file)}
    listed = {file for file in files if file not in links}
    kept: dict[tuple[str, str], _Image] = {}
    roles: dict[str, set[str]] = {}
    for file, image in zip(files, images, strict=True):
        # Several names of one file elsewhere stay: stores of contents keep equal images once, whoever is on them.
        file = links[file] if links.get(file) in listed else file
        first = kept.setdefault((image.role, file), image)
        if (first.identity, first.camera) != (image.identity, image.camera):
            raise DatasetError(f"folder: {image.place}: the image has another identity or camera in {first.place}")
        roles.setdefault(file, set()).add(image.role)
    if len(kept) < len(images):
        _warn(f"{len(images) - len(kept)} of {len(images)} images are listed twice; each is taken once")
    shared = Counter(" and ".join(sorted(of, key=ROLES.index)) for of in roles.values() if len(of) > 1)
    if shared:
        counts = ", ".join(f"{count} in {of}" for of, count in sorted(shared.items()))
        _warn(f"some images have several roles ({counts}): figures measured on them flatter")
    return list(kept.values())


def _split_views(images: list[_Image]) -> tuple[list[_Image], Views | None]:
    """The images that are no view of another one, and the views of those for training.

    Raises:
        DatasetError: a view for evaluation, or of something that is no training image.
    """
    own = [image for image in images if image.view_of is None]
    if len(own) == len(images):
        return images, None
    training = (image for image in own if image.role == "train")
    place = {os.path.normpath(image.path): i for i, image in enumerate(training)}
    paths, of = [], []
    for image in images:
        if image.view_of is None:
            continue
        if image.role != "train":
            raise DatasetError(f"folder: {image.place}: a view_of another image is for training, got {image.role}")
        original = place.get(os.path.normpath(image.view_of))
        if original is None:
            raise DatasetError(f"folder: {image.place}: view_of: {image.view_of} is no training image of the table")
        paths.append(image.path)
        of.append(original)
    return own, Views(tuple(paths), np.array(of, dtype=np.int64))


def _tracklets(images: list[_Image]) -> NDArray[np.int64] | None:
    """A number for each (camera, tracklet), -1 for an image in none; None if all are in none."""
    names = [None if image.tracklet is None else (image.camera or "", image.tracklet) for image in images]
    numbered = {name: i for i, name in enumerate(dict.fromkeys(name for name in names if name is not None))}
    if not numbered:
        return None
    return np.array([-1 if name is None else numbered[name] for name in names], dtype=np.int64)


def _frames(images: list[_Image]) -> NDArray[np.int64] | None:
    """The frame of each image, -1 for none; None if all have none."""
    frames = np.array([-1 if image.frame is None else image.frame for image in images], dtype=np.int64)
    return frames if (frames >= 0).any() else None


def _warn_of_half_a_test(splits: dict[str, Split]) -> None:
    for there, missing in (("query", "gallery"), ("gallery", "query")):
        if len(splits[there]) and not len(splits[missing]):
            _warn(f"{len(splits[there])} {there} images but no {missing} images: they are not trained on, and not used")


def _warn(message: str) -> None:
    warnings.warn(f"folder: {message}", DatasetWarning, stacklevel=4)
