"""What the report shows of images and features, sampled at the end of a run and kept in its folder as report.npz.

The report is remade from the folder alone: no data set, no network and no features are needed for it.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ise_fast.data import ImageStore, Split
from ise_fast.data.files import publish

Array = NDArray[Any]
NO_CAMERA = NO_IDENTITY = -1


class ImageSet(NamedTuple):
    """Images of one role with their features; three lists in the same order."""

    features: Tensor  # [n, d] unit rows
    split: Split
    images: ImageStore


class RankLists(NamedTuple):
    """Q queries with the first T gallery images of each, junk (same identity, same camera) removed as in evaluation."""

    query_images: Array  # [Q, h, w, 3] uint8
    query_ids: Array  # [Q]
    query_cams: Array  # [Q], NO_CAMERA where unknown
    ap: Array  # [Q] average precision
    matches: Array  # [Q] images in the gallery that are right
    removed: Array  # [Q] junk images
    images: Array  # [Q, T, h, w, 3] uint8
    ids: Array  # [Q, T]
    cams: Array  # [Q, T]
    similarity: Array  # [Q, T] cosine
    shown: Array  # [Q] images in the list, below T in a tiny gallery


class EmbeddingPicture(NamedTuple):
    """Features as points of the plane (t-SNE)."""

    points: Array  # [n, 2] float32
    groups: Array  # [n] identity of test images, or pseudo label of training images
    cams: Array  # [n], NO_CAMERA where unknown
    of_test_images: Array  # bool scalar
    images: Array  # [n, h, w, 3] uint8, smaller than elsewhere


class Clusters(NamedTuple):
    """Pseudo labels of the last epoch, and images of some clusters."""

    sizes: Array  # [K] images in each cluster
    outliers: Array  # int scalar
    examples: Array  # [c] cluster numbers; -1: the outliers
    images: Array  # [c, m, h, w, 3] uint8
    shown: Array  # [c] images in each row
    ids: Array  # [c, m] identities, NO_IDENTITY where they are not known
    foreign: Array  # [K] images of another identity than most of the cluster, NO_IDENTITY where none is known


class Statistics(NamedTuple):
    """Figures of the whole test split: Q queries that have a match."""

    names: Array  # [Q] file names, by which the queries of two runs are matched
    ap: Array  # [Q] float32
    cmc: Array  # [r] float64, cmc[0] is rank-1
    edges: Array  # [b + 1] of the bins of the cosine
    counts: Array  # [4, b] pairs of PAIRS by their cosine
    cameras: Array  # [c] numbers of cameras, NO_CAMERA alone where unknown
    camera_ap: Array  # [c, c] mAP of queries of a row's camera among the gallery of a column's, NaN: no such query


PAIRS = ("same identity, other camera", "same identity, same camera", "other identity, same camera",
         "other identity, other camera")  # fmt: skip


class ReportData(NamedTuple):
    """Everything in report.npz; a part is None where the run had nothing to sample from."""

    rank_lists: RankLists | None = None
    embedding: EmbeddingPicture | None = None
    clusters: Clusters | None = None
    statistics: Statistics | None = None

    def save(self, path: Path) -> None:
        """Write the file."""
        arrays = {
            f"{part}.{name}": value
            for part, content in self._asdict().items()
            if content is not None
            for name, value in content._asdict().items()
        }
        with publish(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> ReportData:
        """Read a file that `save` wrote.

        Raises:
            ValueError: if the file is damaged or was written by another version.
        """
        parts: dict[str, Any] = {}
        try:
            with np.load(path, allow_pickle=False) as arrays:
                for part, kind in PARTS.items():
                    if f"{part}.{kind._fields[0]}" in arrays:
                        parts[part] = kind(*(arrays[f"{part}.{name}"] for name in kind._fields))
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"{path}: expected the samples of a run, got {error}") from error
        return cls(**parts)


PARTS: dict[str, Any] = {
    "rank_lists": RankLists,
    "embedding": EmbeddingPicture,
    "clusters": Clusters,
    "statistics": Statistics,
}
