"""Figures of all queries for the report: ranks, average precision, distances of pairs, and cameras against cameras."""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ise_fast import ops
from ise_fast.engine.evaluator import has_match
from ise_fast.engine.report_data import NO_CAMERA, Array, ImageSet, Statistics

RANKS = 50  # of the CMC curve
BINS = 100  # of the cosine, from -1 to 1
MAX_QUERIES = 2000  # whose distances are counted, evenly spaced
MAX_CAMERAS = 20  # of the table: those with the most queries
BLOCK = 4096  # queries at a time, so that no Q x G matrix is formed


class Ranked(NamedTuple):
    """Queries that have a match."""

    rows: Array  # [n] their positions
    ap: Array  # [n] float32
    cmc: Array  # [r] float64


class _Sides(NamedTuple):
    """Features, identities and cameras of both sides on one device; without cameras on either side, on none."""

    query: Tensor
    gallery: Tensor
    ids: Tensor
    gallery_ids: Tensor
    cams: Tensor | None
    gallery_cams: Tensor | None


def rank(query: ImageSet, gallery: ImageSet) -> Ranked | None:
    """Average precision of every query that has a match, and the CMC curve.

    Returns:
        None if no query has a match, or identities are not known.
    """
    if query.split.ids is None or gallery.split.ids is None:
        return None
    matched = has_match(query.split, gallery.split)
    rows = torch.nonzero(matched).flatten()
    if not len(rows):
        return None
    ap, cmc = _rank(_sides(query, gallery), rows.to(query.features.device))
    return Ranked(rows.numpy(), ap, cmc)


def sample_statistics(query: ImageSet, gallery: ImageSet, ranked: Ranked) -> Statistics:
    """Statistics of the queries that `rank` found to have a match."""
    sides = _sides(query, gallery)
    cameras, table = _camera_table(sides)
    names = [os.path.basename(query.images.paths[row]) for row in ranked.rows]
    counts = _pair_counts(sides)
    edges = np.linspace(-1, 1, BINS + 1)
    return Statistics(np.array(names), ranked.ap, ranked.cmc, edges, counts, cameras, table)


def _sides(query: ImageSet, gallery: ImageSet) -> _Sides:
    device = query.features.device

    def there(values: Array | None) -> Tensor:
        return torch.as_tensor(values, device=device)

    known = query.split.cams is not None and gallery.split.cams is not None
    return _Sides(
        query.features, gallery.features, there(query.split.ids), there(gallery.split.ids),
        there(query.split.cams) if known else None, there(gallery.split.cams) if known else None,
    )  # fmt: skip


def _rank(sides: _Sides, rows: Tensor) -> tuple[Array, Array]:
    """[n] average precision and [r] CMC of these queries, all of which have a match."""
    parts, hits = [], torch.zeros(min(RANKS, len(sides.gallery)), dtype=torch.float64)
    for chosen in rows.split(BLOCK):
        distance = 2 - 2 * sides.query[chosen] @ sides.gallery.T
        cams = None if sides.cams is None else sides.cams[chosen]
        result = ops.rank_metrics(
            distance, sides.ids[chosen], sides.gallery_ids, cams, sides.gallery_cams, max_rank=len(hits)
        )
        parts.append(result.ap.cpu())
        hits += result.cmc.cpu().double() * len(chosen)
    return torch.cat(parts).numpy(), (hits / len(rows)).numpy()


def _pair_counts(sides: _Sides) -> Array:
    """[4, b] pairs of a query and a gallery image by kind (`PAIRS`) and cosine."""
    count = len(sides.query)
    rows = torch.linspace(0, count - 1, min(count, MAX_QUERIES), device=sides.query.device).round().long()
    total = torch.zeros(4 * BINS, dtype=torch.int64)
    for chosen in rows.split(BLOCK // 16):
        place = ((sides.query[chosen] @ sides.gallery.T + 1) * (BINS / 2)).long().clamp_(0, BINS - 1)
        same = sides.ids[chosen, None] == sides.gallery_ids
        own = torch.zeros_like(same)
        if sides.cams is not None and sides.gallery_cams is not None:
            own = sides.cams[chosen, None] == sides.gallery_cams
        kind = torch.where(same, own.long(), 3 - own.long())
        total += torch.bincount((kind * BINS + place).flatten(), minlength=4 * BINS).cpu()
    return total.reshape(4, BINS).numpy()


def _camera_table(sides: _Sides) -> tuple[Array, Array]:
    """Cameras, and the mAP of the queries of one among the gallery of another."""
    if sides.cams is None or sides.gallery_cams is None:
        return np.array([NO_CAMERA]), np.full((1, 1), np.nan)
    numbers, counts = torch.unique(sides.cams, return_counts=True)
    cameras = numbers[counts.argsort(descending=True, stable=True)[:MAX_CAMERAS]].sort().values
    table = np.full((len(cameras), len(cameras)), np.nan)
    for column, camera in enumerate(cameras):
        inside = torch.nonzero(sides.gallery_cams == camera).flatten()
        there = sides._replace(
            gallery=sides.gallery[inside],
            gallery_ids=sides.gallery_ids[inside],
            gallery_cams=sides.gallery_cams[inside],
        )
        asked = torch.isin(sides.ids, there.gallery_ids) & (sides.cams != camera)
        rows = torch.nonzero(asked & torch.isin(sides.cams, cameras)).flatten()
        if not len(rows):
            continue
        ap, cams = _rank(there, rows)[0], sides.cams[rows].cpu().numpy()
        for row, other in enumerate(cameras.cpu().numpy()):
            if (cams == other).any():
                table[row, column] = ap[cams == other].mean()
    return cameras.cpu().numpy(), table
