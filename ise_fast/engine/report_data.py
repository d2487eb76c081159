"""What the report shows of images and features, sampled at the end of a run and kept in its folder as report.npz.

The report is remade from the folder alone: no data set, no network and no features are needed for it.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ise_fast import ops
from ise_fast.data import ImageStore, Split
from ise_fast.data.files import publish

if TYPE_CHECKING:
    from ise_fast.engine.assemble import RetrievalImages, TrainingImages
    from ise_fast.engine.distributed import World
    from ise_fast.engine.features import FeatureExtractor

Array = NDArray[Any]
NO_CAMERA = -1
THUMBNAIL = 128  # pixels of the longer side, at most


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


class Clusters(NamedTuple):
    """Pseudo labels of the last epoch, and images of some clusters."""

    sizes: Array  # [K] images in each cluster
    outliers: Array  # int scalar
    examples: Array  # [c] cluster numbers; -1: the outliers
    images: Array  # [c, m, h, w, 3] uint8
    shown: Array  # [c] images in each row


class ReportData(NamedTuple):
    """Everything in report.npz; a part is None where the run had nothing to sample from."""

    rank_lists: RankLists | None = None
    embedding: EmbeddingPicture | None = None
    clusters: Clusters | None = None

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
                for part, kind in (("rank_lists", RankLists), ("embedding", EmbeddingPicture), ("clusters", Clusters)):
                    if f"{part}.{kind._fields[0]}" in arrays:
                        parts[part] = kind(*(arrays[f"{part}.{name}"] for name in kind._fields))
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"{path}: expected the samples of a run, got {error}") from error
        return cls(**parts)


def sample_run(
    extract: FeatureExtractor,
    test: RetrievalImages | None,
    training: TrainingImages,
    labels: Tensor | None,
    world: World,
) -> ReportData:
    """Sample everything that a run has at its end; every process must call it, the first gets the samples.

    Args:
        extract: images -> features, with the network of the run.
        test: queries and gallery; without them, the picture shows training images and their clusters.
        training: the training images.
        labels: [n] pseudo labels of the last epoch, or None.
        world: this process among its peers.
    """
    numbers = None if labels is None else labels.numpy()
    if test is not None:
        query = ImageSet(extract(test.query_images), test.query, test.query_images)
        gallery = ImageSet(extract(test.gallery_images), test.gallery, test.gallery_images)
        return _sample_test(query, gallery, numbers, training) if world.is_main else ReportData()
    features = extract(training.images)
    if numbers is None or not world.is_main:
        return ReportData()
    picture = project(features, numbers, training.cams, of_test_images=False)
    return ReportData(None, picture, sample_clusters(numbers, training.images))


def _sample_test(query: ImageSet, gallery: ImageSet, labels: Array | None, training: TrainingImages) -> ReportData:
    lists, picture = sample_rank_lists(query, gallery), None
    if lists is not None:
        ids, gallery_ids = np.asarray(query.split.ids), np.asarray(gallery.split.ids)
        groups = np.concatenate([ids, np.where(np.isin(gallery_ids, ids), gallery_ids, -1)])  # no distractors
        cams, gallery_cams = query.split.cams, gallery.split.cams
        known = None if cams is None or gallery_cams is None else np.concatenate([cams, gallery_cams])
        features = torch.cat([query.features, gallery.features])
        picture = project(features, groups, known, of_test_images=True)
    return ReportData(lists, picture, None if labels is None else sample_clusters(labels, training.images))


def sample_rank_lists(query: ImageSet, gallery: ImageSet, *, queries: int = 8, top: int = 10) -> RankLists | None:
    """Rank lists of queries spread evenly from the worst to the best average precision.

    Args:
        query: Q images.
        gallery: G images.
        queries: lists to make.
        top: gallery images in a list.

    Returns:
        None if no query has a match, or identities are not known.
    """
    ids, gallery_ids, cams, gallery_cams = query.split.ids, gallery.split.ids, query.split.cams, gallery.split.cams
    if ids is None or gallery_ids is None:
        return None
    if cams is None or gallery_cams is None:
        cams = gallery_cams = None

    def same_and_junk(q: int) -> tuple[Array, Array]:
        """[G] bool: images of the query's identity, and those of them that its own camera took."""
        same = gallery_ids == ids[q]
        return same, same & (gallery_cams == cams[q]) if cams is not None else np.zeros_like(same)

    rated = np.array([q for q in range(len(ids)) if np.logical_xor(*same_and_junk(q)).any()], dtype=np.int64)
    if not len(rated):
        return None
    ap = _average_precision(query, gallery, rated, cams is not None)
    order = np.argsort(ap, kind="stable")
    rated, ap = rated[order], ap[order]
    spread = np.unique(np.linspace(0, len(rated) - 1, queries).round().astype(int))
    chosen = rated[spread]

    rows = torch.from_numpy(chosen).to(query.features.device)
    similarity = (query.features[rows] @ gallery.features.T).cpu().numpy()
    listed = np.zeros((len(chosen), top), dtype=np.int64)
    shown, matches, removed = (np.zeros(len(chosen), dtype=np.int64) for _ in range(3))
    for row, q in enumerate(chosen):
        same, junk = same_and_junk(q)
        order = np.argsort(-similarity[row], kind="stable")
        order = order[~junk[order]][:top]
        listed[row, : len(order)] = order
        shown[row], matches[row], removed[row] = len(order), (same & ~junk).sum(), junk.sum()
    pictures = _thumbnails(gallery.images, listed.ravel())
    return RankLists(
        query_images=_thumbnails(query.images, chosen),
        query_ids=ids[chosen],
        query_cams=_known(cams, len(ids))[chosen],
        ap=ap[spread],
        matches=matches,
        removed=removed,
        images=pictures.reshape(*listed.shape, *pictures.shape[1:]),
        ids=gallery_ids[listed],
        cams=_known(gallery_cams, len(gallery_ids))[listed],
        similarity=np.take_along_axis(similarity, listed, axis=1),
        shown=shown,
    )


def project(
    features: Tensor,
    groups: Array,
    cams: Array | None,
    *,
    of_test_images: bool,
    max_groups: int = 20,
    max_points: int = 500,
) -> EmbeddingPicture | None:
    """Features of some groups in the plane: t-SNE on the cosine, started from PCA, with a fixed seed.

    Args:
        features: [N, d] unit rows.
        groups: [N] identity or cluster; negative: left out.
        cams: [N] cameras, or None.
        of_test_images: whether groups are identities of test images (else clusters of training images).
        max_groups: groups taken, evenly spaced among those with at least four images.
        max_points: points drawn at most.

    Returns:
        None if there are fewer than five points.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    numbers, counts = np.unique(groups[groups >= 0], return_counts=True)
    numbers = numbers[counts >= 4] if (counts >= 4).any() else numbers
    if len(numbers) > max_groups:
        numbers = numbers[np.linspace(0, len(numbers) - 1, max_groups).round().astype(int)]
    rows = np.flatnonzero(np.isin(groups, numbers))
    if len(rows) > max_points:
        rows = rows[np.linspace(0, len(rows) - 1, max_points).round().astype(int)]
    if len(rows) < 5:
        return None
    x = features[torch.from_numpy(rows).to(features.device)].cpu().numpy()
    # One thread: for a few hundred points more of them only wait for each other, and the sums keep one order.
    with threadpool_limits(1):
        x = PCA(min(50, *x.shape), random_state=0).fit_transform(x)
        points = TSNE(perplexity=min(30.0, (len(rows) - 1) / 3), init="pca", random_state=0).fit_transform(x)
    return EmbeddingPicture(
        points.astype(np.float32), groups[rows], _known(cams, len(groups))[rows], np.array(of_test_images)
    )


def sample_clusters(labels: Array, images: ImageStore, *, rows: int = 6, columns: int = 12) -> Clusters:
    """Images of clusters spread evenly from the largest to the smallest, and of the outliers.

    Args:
        labels: [n] pseudo labels, -1: outlier.
        images: the n training images.
        rows: clusters shown.
        columns: images shown of each, spread evenly over its members.
    """
    sizes = np.bincount(labels[labels >= 0]) if (labels >= 0).any() else np.zeros(0, dtype=np.int64)
    by_size = np.argsort(-sizes, kind="stable")
    examples = by_size[np.unique(np.linspace(0, len(sizes) - 1, rows).round().astype(int))] if len(sizes) else by_size
    outliers = int((labels < 0).sum())
    if outliers:
        examples = np.append(examples, -1)
    members = [np.flatnonzero(labels == number if number >= 0 else labels < 0) for number in examples]
    listed = np.zeros((len(examples), columns), dtype=np.int64)
    shown = np.zeros(len(examples), dtype=np.int64)
    for row, inside in enumerate(members):
        picked = inside[np.unique(np.linspace(0, len(inside) - 1, columns).round().astype(int))]
        listed[row, : len(picked)], shown[row] = picked, len(picked)
    pictures = _thumbnails(images, listed.ravel())
    return Clusters(sizes, np.array(outliers), examples, pictures.reshape(*listed.shape, *pictures.shape[1:]), shown)


def _average_precision(query: ImageSet, gallery: ImageSet, chosen: Array, with_cams: bool) -> Array:
    """[n] float32 of the chosen queries; in blocks, so that no Q x G matrix is formed."""
    device = query.features.device
    ids, gallery_ids = (torch.as_tensor(side.split.ids, device=device) for side in (query, gallery))
    cams = torch.as_tensor(query.split.cams, device=device) if with_cams else None
    gallery_cams = torch.as_tensor(gallery.split.cams, device=device) if with_cams else None
    parts = []
    for rows in torch.from_numpy(chosen).to(device).split(4096):
        distance = 2 - 2 * query.features[rows] @ gallery.features.T
        result = ops.rank_metrics(distance, ids[rows], gallery_ids, None if cams is None else cams[rows], gallery_cams)
        parts.append(result.ap.cpu())
    return torch.cat(parts).numpy()


def _thumbnails(store: ImageStore, indices: Array) -> Array:
    """[n, h, w, 3] uint8, the longer side at most THUMBNAIL pixels."""
    images = store.batch(indices).cpu()
    scale = THUMBNAIL / max(images.shape[2:])
    if scale < 1:
        size = [max(1, round(side * scale)) for side in images.shape[2:]]
        images = F.interpolate(images.float(), size, mode="area").round().to(torch.uint8)
    pictures: Array = images.permute(0, 2, 3, 1).contiguous().numpy()
    return pictures


def _known(cams: Array | None, count: int) -> Array:
    return np.full(count, NO_CAMERA) if cams is None else cams
