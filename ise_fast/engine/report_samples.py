"""What report.npz gets at the end of a run: rank lists, a picture of the features, and clusters."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ise_fast.data import ImageStore
from ise_fast.engine.report_data import (
    NO_CAMERA,
    NO_IDENTITY,
    Array,
    Clusters,
    EmbeddingPicture,
    ImageSet,
    RankLists,
    ReportData,
)
from ise_fast.engine.report_statistics import Ranked, rank, sample_statistics

if TYPE_CHECKING:
    from ise_fast.engine.assemble import RetrievalImages, TrainingImages
    from ise_fast.engine.distributed import World
    from ise_fast.engine.features import FeatureExtractor

THUMBNAIL, SMALL = 128, 72  # pixels of the longer side, at most: of pictures, and of the points of the embedding


def sample_run(
    extract: FeatureExtractor,
    test: RetrievalImages | None,
    training: TrainingImages,
    labels: Tensor | None,
    world: World,
    identities: Array | None = None,
) -> ReportData:
    """Sample everything that a run has at its end; every process must call it, the first gets the samples.

    Args:
        extract: images -> features, with the network of the run.
        test: queries and gallery; without them, the picture shows training images and their clusters.
        training: the training images.
        labels: [n] pseudo labels of the last epoch, or None.
        world: this process among its peers.
        identities: [n] of the training images, for this page alone.
    """
    numbers = None if labels is None else labels.numpy()
    if test is not None:
        query = ImageSet(extract(test.query_images), test.query, test.query_images)
        gallery = ImageSet(extract(test.gallery_images), test.gallery, test.gallery_images)
        data = _sample_test(query, gallery) if world.is_main else ReportData()
    else:
        features = extract(training.images)
        data = ReportData()
        if numbers is not None and world.is_main:
            data = ReportData(embedding=_of_training_images(features, numbers, training))
    if numbers is None or not world.is_main:
        return data
    return data._replace(clusters=sample_clusters(numbers, training.images, identities))


def _of_training_images(features: Tensor, labels: Array, training: TrainingImages) -> EmbeddingPicture | None:
    def pictures(rows: Array, side: int) -> Array:
        return thumbnails(training.images, rows, side)

    return project(features, labels, training.cams, pictures, of_test_images=False)


def _sample_test(query: ImageSet, gallery: ImageSet) -> ReportData:
    ranked = rank(query, gallery)
    if ranked is None:
        return ReportData()
    ids, gallery_ids = np.asarray(query.split.ids), np.asarray(gallery.split.ids)
    groups = np.concatenate([ids, np.where(np.isin(gallery_ids, ids), gallery_ids, -1)])  # no distractors
    cams, gallery_cams = query.split.cams, gallery.split.cams
    known = None if cams is None or gallery_cams is None else np.concatenate([cams, gallery_cams])

    def pictures(rows: Array, side: int) -> Array:
        of_query = rows < len(ids)
        return np.concatenate([
            thumbnails(query.images, rows[of_query], side), thumbnails(gallery.images, rows[~of_query] - len(ids), side)
        ])  # fmt: skip

    picture = project(torch.cat([query.features, gallery.features]), groups, known, pictures, of_test_images=True)
    lists, statistics = sample_rank_lists(query, gallery, ranked), sample_statistics(query, gallery, ranked)
    return ReportData(lists, picture, None, statistics)


def sample_rank_lists(
    query: ImageSet, gallery: ImageSet, ranked: Ranked, *, worst: int = 12, spread: int = 8, top: int = 10
) -> RankLists:
    """Rank lists of the queries with the worst average precision, and of others spread evenly up to the best.

    Args:
        query: Q images.
        gallery: G images.
        ranked: the queries that have a match.
        worst: lists of the worst queries.
        spread: lists of others.
        top: gallery images in a list.
    """
    ids, gallery_ids = np.asarray(query.split.ids), np.asarray(gallery.split.ids)
    cams, gallery_cams = query.split.cams, gallery.split.cams
    if cams is None or gallery_cams is None:
        cams = gallery_cams = None

    def same_and_junk(q: int) -> tuple[Array, Array]:
        """[G] bool: images of the query's identity, and those of them that its own camera took."""
        same = gallery_ids == ids[q]
        return same, same & (gallery_cams == cams[q]) if cams is not None else np.zeros_like(same)

    order = np.argsort(ranked.ap, kind="stable")
    rest = np.linspace(min(worst, len(order) - 1), len(order) - 1, spread).round().astype(int)
    picked = order[np.unique(np.concatenate([np.arange(min(worst, len(order))), rest]))]
    chosen, ap = ranked.rows[picked], ranked.ap[picked]

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
    pictures = thumbnails(gallery.images, listed.ravel())
    return RankLists(
        query_images=thumbnails(query.images, chosen),
        query_ids=ids[chosen],
        query_cams=_known(cams, len(ids))[chosen],
        ap=ap,
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
    thumbnails: Callable[[Array, int], Array],
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
        thumbnails: rows -> their pictures, at most so many pixels high and wide.
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
        points.astype(np.float32), groups[rows], _known(cams, len(groups))[rows], np.array(of_test_images),
        thumbnails(rows, SMALL),
    )  # fmt: skip


def sample_clusters(
    labels: Array, images: ImageStore, identities: Array | None = None, *, rows: int = 10, columns: int = 12
) -> Clusters:
    """Images of clusters and of the outliers.

    Where identities are known, the clusters with the most images of others come first; else clusters are spread evenly
    from the largest to the smallest.

    Args:
        labels: [n] pseudo labels, -1: outlier.
        images: the n training images.
        identities: [n] true identities, negative: not known; for this page alone.
        rows: clusters shown.
        columns: images shown of each, spread evenly over its members.
    """
    sizes = np.bincount(labels[labels >= 0]) if (labels >= 0).any() else np.zeros(0, dtype=np.int64)
    foreign = _foreign(labels, identities, len(sizes))
    examples = np.argsort(-sizes, kind="stable")
    if (foreign >= 0).any():
        examples = examples[np.argsort(-foreign[examples], kind="stable")][:rows]
    elif len(sizes):
        examples = examples[np.unique(np.linspace(0, len(sizes) - 1, rows).round().astype(int))]
    outliers = int((labels < 0).sum())
    if outliers:
        examples = np.append(examples, -1)
    members = [np.flatnonzero(labels == number if number >= 0 else labels < 0) for number in examples]
    listed = np.zeros((len(examples), columns), dtype=np.int64)
    shown = np.zeros(len(examples), dtype=np.int64)
    for row, inside in enumerate(members):
        picked = inside[np.unique(np.linspace(0, len(inside) - 1, columns).round().astype(int))]
        listed[row, : len(picked)], shown[row] = picked, len(picked)
    pictures = thumbnails(images, listed.ravel())
    ids = np.full(listed.shape, NO_IDENTITY) if identities is None else np.asarray(identities)[listed]
    pictures = pictures.reshape(*listed.shape, *pictures.shape[1:])
    return Clusters(sizes, np.array(outliers), examples, pictures, shown, ids, foreign)


def _foreign(labels: Array, identities: Array | None, clusters: int) -> Array:
    """[K] images of each cluster that are not of its most frequent identity; NO_IDENTITY: none is known there."""
    result = np.full(clusters, NO_IDENTITY)
    if identities is None:
        return result
    known = (labels >= 0) & (np.asarray(identities) >= 0)
    numbers, ids = labels[known], np.unique(np.asarray(identities)[known], return_inverse=True)[1]
    pairs, counts = np.unique(np.stack([numbers, ids]), axis=1, return_counts=True)
    most, total = np.zeros(clusters, dtype=np.int64), np.bincount(numbers, minlength=clusters)
    np.maximum.at(most, pairs[0], counts)
    result[total > 0] = (total - most)[total > 0]
    return result


def thumbnails(store: ImageStore, indices: Array, side: int = THUMBNAIL) -> Array:
    """[n, h, w, 3] uint8, the longer side at most `side` pixels."""
    images = store.batch(indices).cpu()
    scale = side / max(images.shape[2:])
    if scale < 1:
        size = [max(1, round(pixels * scale)) for pixels in images.shape[2:]]
        images = F.interpolate(images.float(), size, mode="area").round().to(torch.uint8)
    pictures: Array = images.permute(0, 2, 3, 1).contiguous().numpy()
    return pictures


def _known(cams: Array | None, count: int) -> Array:
    return np.full(count, NO_CAMERA) if cams is None else cams
