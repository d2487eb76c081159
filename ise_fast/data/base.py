"""A re-identification data set: three lists of images with identities and cameras, and a view without identities."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

ROLES = ("train", "query", "gallery")


class DatasetError(ValueError):
    """A data set that is missing, incomplete or not laid out as expected; the message is one line with the remedy."""


class DatasetWarning(UserWarning):
    """A data set that can be used but differs from the published one."""


@dataclass(frozen=True, eq=False)
class Views:
    """Further views of the images of a split: the same things in another look, mostly made by a network.

    Attributes:
        paths: v image paths.
        of: [v] int64, the image of the split that each is a view of.
    """

    paths: tuple[Path, ...]
    of: NDArray[np.int64]

    def take(self, chosen: NDArray[np.int64]) -> Views:
        """The views of the images at `chosen`, which are then numbered from 0."""
        place = {int(image): i for i, image in enumerate(chosen)}
        kept = [(path, place[int(image)]) for path, image in zip(self.paths, self.of, strict=True) if image in place]
        return Views(tuple(path for path, _ in kept), np.array([image for _, image in kept], dtype=np.int64))


@dataclass(frozen=True, eq=False)
class UnlabelledSplit:
    """Images and cameras of a split: all that unsupervised training may see.

    Attributes:
        paths: n image paths. A path may point into a zip archive (`a.zip/folder/x.png`): read it with `read_image`.
        cams: [n] int64, cameras from 0, or None where they are not known.
        tracklets: [n] int64, from 0, or -1 for an image in none; None where none is known.
        views: further views of the images, or None.
        frames: [n] int64, frame of the camera's video, counted by time, or -1; None where none is known.
    """

    paths: tuple[Path, ...]
    cams: NDArray[np.int64] | None
    tracklets: NDArray[np.int64] | None = None
    views: Views | None = None
    frames: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, indices: ArrayLike) -> UnlabelledSplit:
        """The images at `indices`, for example `ImageStore.kept`."""
        chosen = np.asarray(indices, dtype=np.int64)
        known = (self.cams, self.tracklets, self.frames)
        cams, tracklets, frames = (None if value is None else value[chosen] for value in known)
        views = None if self.views is None else self.views.take(chosen)
        return UnlabelledSplit(tuple(self.paths[i] for i in chosen), cams, tracklets, views, frames)


@dataclass(frozen=True, eq=False)
class Split:
    """Images of one role.

    Attributes:
        paths: n image paths. A path may point into a zip archive (`a.zip/folder/x.png`): read it with `read_image`.
        ids: [n] int64, true identities as the data set numbers them, or None where they are not known.
        cams: [n] int64, cameras from 0, or None where they are not known.
        tracklets, views, frames: as those of `UnlabelledSplit`.

    Raises:
        ValueError: if ids, cams, tracklets or frames have another length than paths.
    """

    paths: tuple[Path, ...]
    ids: NDArray[np.int64] | None
    cams: NDArray[np.int64] | None
    tracklets: NDArray[np.int64] | None = None
    views: Views | None = None
    frames: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        for field in ("ids", "cams", "tracklets", "frames"):
            value = getattr(self, field)
            if value is None:
                continue
            try:
                value = np.asarray(value, dtype=np.int64)
            except OverflowError:
                raise ValueError(f"{field}: expected whole numbers of 64 bits") from None
            if value.shape != (len(self.paths),):
                raise ValueError(f"{field}: expected shape ({len(self.paths)},), one per path, got {value.shape}")
            object.__setattr__(self, field, value)

    @classmethod
    def from_rows(cls, rows: Iterable[tuple[Path, int, int]], frames: ArrayLike | None = None) -> Split:
        """From (path, identity, camera) triples, and the frame of each, if known."""
        listed = list(rows)
        ids, cams = (np.array([row[i] for row in listed], dtype=np.int64) for i in (1, 2))
        numbers = None if frames is None else np.asarray(frames, dtype=np.int64)
        return cls(tuple(row[0] for row in listed), ids, cams, frames=numbers)

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, indices: ArrayLike) -> Split:
        """The images at `indices`, for example `ImageStore.kept`."""
        chosen = np.asarray(indices, dtype=np.int64)
        kept = self.unlabelled.take(chosen)
        ids = None if self.ids is None else self.ids[chosen]
        return Split(kept.paths, ids, kept.cams, kept.tracklets, kept.views, kept.frames)

    @property
    def unlabelled(self) -> UnlabelledSplit:
        """The same images and cameras; the identities are not reachable from the result."""
        return UnlabelledSplit(self.paths, self.cams, self.tracklets, self.views, self.frames)

    def counts(self) -> tuple[int | None, int, int | None]:
        """(identities, images, cameras); None where they are not known."""
        distinct = (None if value is None else len(np.unique(value)) for value in (self.ids, self.cams))
        identities, cameras = distinct
        return identities, len(self.paths), cameras


@dataclass(frozen=True, eq=False)
class ReIDDataset:
    """A data set for re-identification: training images, and queries to be found in a gallery.

    Attributes:
        name: as in `DATASETS`.
        root: the folder that was read.
        train, query, gallery: the images. `query` and `gallery` are empty when there is nothing to evaluate on.
        image_size: (height, width) that this data set is usually resized to.
    """

    name: str
    root: Path
    train: Split
    query: Split
    gallery: Split
    image_size: tuple[int, int]

    @property
    def training_images(self) -> UnlabelledSplit:
        """What training code gets: no identity can leak through it."""
        return self.train.unlabelled

    @property
    def can_evaluate(self) -> bool:
        """Whether there are queries and a gallery with known identities."""
        return all(len(split) > 0 and split.ids is not None for split in (self.query, self.gallery))

    def take(self, **kept: ArrayLike) -> ReIDDataset:
        """Keep some images of some roles: `dataset.take(train=store.kept)` after unreadable images were skipped."""
        return replace(self, **{role: getattr(self, role).take(indices) for role, indices in kept.items()})

    def table(self) -> str:
        """The table of identities, images and cameras that users of this field know, a line per role."""
        rule = "  " + "-" * 41
        lines = [f"{self.name}: {self.root}", rule, "  subset   |  # ids | # images | # cameras", rule]
        for role in ROLES:
            ids, images, cams = ("-" if count is None else str(count) for count in getattr(self, role).counts())
            lines.append(f"  {role:8s} | {ids:>6s} | {images:>8s} | {cams:>9s}")
        return "\n".join([*lines, rule])


Counts = Mapping[str, tuple[int | None, int]]  # role -> (identities or None, images)


def warn_if_counts_differ(dataset: ReIDDataset, published: Counts) -> None:
    """Warn once, naming every role whose number of images or identities is not the published one."""
    differences = []
    for role, (identities, images) in published.items():
        found_ids, found_images, _ = getattr(dataset, role).counts()
        if images != found_images:
            differences.append(f"{role} has {found_images} images, not {images}")
        elif identities is not None and identities != found_ids:
            differences.append(f"{role} has {found_ids} identities, not {identities}")
    if differences:
        message = f"{dataset.name} in {dataset.root} differs from the published set: {'; '.join(differences)}"
        warnings.warn(message, DatasetWarning, stacklevel=4)


def require_directory(name: str, data_dir: Path) -> None:
    """Raise a DatasetError if the data folder the user named is missing, is not a folder or is empty."""
    if not data_dir.exists():
        raise DatasetError(f"{name}: data folder {data_dir} does not exist; pass the right one as --data-dir")
    if not data_dir.is_dir():
        raise DatasetError(f"{name}: {data_dir} is not a folder; pass the folder that holds the data set as --data-dir")
    if not any(data_dir.iterdir()):
        raise DatasetError(f"{name}: data folder {data_dir} is empty")


def find_root(name: str, data_dir: Path, inner: str, marker: str, expected: str) -> Path:
    """The folder that holds `marker`: `data_dir / inner`, a part of that path below data_dir, or data_dir itself.

    Args:
        name: data set, for the message.
        data_dir: what the user gave.
        inner: usual place below the data root, such as "market1501/Market-1501-v15.09.15".
        marker: file or folder whose presence decides.
        expected: what the layout should be, for the message.

    Raises:
        DatasetError: if none has it: says what was tried, what was there and what was expected.
    """
    require_directory(name, data_dir)
    parts = Path(inner).parts
    candidates = [
        data_dir.joinpath(*parts[start:end]) for start in range(len(parts)) for end in range(len(parts), start, -1)
    ]
    candidates = list(dict.fromkeys([*candidates, data_dir]))
    for candidate in candidates:
        if (candidate / marker).exists():
            return candidate
    tried = ", ".join(str(path) for path in candidates)
    raise DatasetError(f"{name}: expected {expected}; tried {tried}; {data_dir} holds {listing(data_dir)}")


def listing(folder: Path, limit: int = 6) -> str:
    """The first entries of a folder, for error messages."""
    entries = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in folder.iterdir())
    more = f", ... ({len(entries)} entries)" if len(entries) > limit else ""
    return (", ".join(entries[:limit]) + more) or "nothing"


def option_error(name: str, option: str, expected: str, got: Any) -> DatasetError:
    """A wrong option of a loader, in the words of the project's argument errors."""
    return DatasetError(f"{name}: option {option}: expected {expected}, got {got!r}")
